-- The embedded key store and registry of homes, schema 1.
CREATE TABLE meta (
    schema      INTEGER NOT NULL,   -- what was written
    min_reader  INTEGER NOT NULL,   -- the oldest schema whose reader understands it
    min_writer  INTEGER NOT NULL,   -- the oldest schema whose writer may write it
    incarnation BLOB    NOT NULL    -- 16 random octets; another file has others
) STRICT;

CREATE TABLE keys (
    kind           INTEGER NOT NULL,
    region         TEXT    NOT NULL,
    tenant         TEXT    NOT NULL,
    record_type    TEXT    NOT NULL,
    period         TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    generation     INTEGER NOT NULL,
    state          INTEGER NOT NULL,
    name           BLOB    NOT NULL UNIQUE,
    commitment     BLOB    NOT NULL,
    parent_version INTEGER NOT NULL,
    sealed         BLOB    NOT NULL,
    PRIMARY KEY (kind, region, tenant, record_type, period, version)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: a number is given once, even if its row were removed.
CREATE TABLE writers (
    number INTEGER PRIMARY KEY AUTOINCREMENT
) STRICT;

CREATE TABLE homes (
    tenant      TEXT    NOT NULL,
    record_type TEXT    NOT NULL,   -- a type, or 'all'
    region      TEXT    NOT NULL,
    chosen      INTEGER NOT NULL,   -- microseconds since 1970
    PRIMARY KEY (tenant, record_type)
) STRICT, WITHOUT ROWID;

CREATE TABLE home_statements (
    id        INTEGER PRIMARY KEY,
    body      BLOB NOT NULL,
    signature BLOB NOT NULL
) STRICT;

-- Which statements speak of which choice: the home's own (1), and that of the region where it was chosen (0). A choice
-- with the latter alone is pending; one with neither is none of ours.
CREATE TABLE home_signed (
    tenant      TEXT    NOT NULL,
    record_type TEXT    NOT NULL,
    own         INTEGER NOT NULL CHECK (own IN (0, 1)),
    statement   INTEGER NOT NULL REFERENCES home_statements (id),
    PRIMARY KEY (tenant, record_type, own),
    FOREIGN KEY (tenant, record_type) REFERENCES homes (tenant, record_type)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_chains (
    chain        BLOB    NOT NULL PRIMARY KEY,
    region       TEXT    NOT NULL,
    jurisdiction TEXT    NOT NULL,
    begun        INTEGER NOT NULL,
    actor        TEXT    NOT NULL,
    signature    BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_events (
    chain  BLOB    NOT NULL REFERENCES audit_chains (chain),
    number INTEGER NOT NULL,
    body   TEXT    NOT NULL,
    digest BLOB    NOT NULL,
    PRIMARY KEY (chain, number)
) STRICT, WITHOUT ROWID;

-- A home is chosen once: nothing updates, deletes or replaces one, nor what was signed about it.
CREATE TRIGGER homes_new BEFORE INSERT ON homes
WHEN EXISTS (SELECT 1 FROM homes WHERE tenant = NEW.tenant AND record_type = NEW.record_type)
BEGIN SELECT RAISE(ABORT, 'a home is chosen once'); END;
CREATE TRIGGER home_statements_new BEFORE INSERT ON home_statements
WHEN EXISTS (SELECT 1 FROM home_statements WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'a statement is made once'); END;
CREATE TRIGGER home_signed_new BEFORE INSERT ON home_signed
WHEN EXISTS (
    SELECT 1 FROM home_signed WHERE tenant = NEW.tenant AND record_type = NEW.record_type AND own = NEW.own)
BEGIN SELECT RAISE(ABORT, 'a statement is made once'); END;
CREATE TRIGGER homes_once BEFORE UPDATE ON homes
BEGIN SELECT RAISE(ABORT, 'a home is chosen once'); END;
CREATE TRIGGER homes_forever BEFORE DELETE ON homes
BEGIN SELECT RAISE(ABORT, 'a home is chosen once'); END;
CREATE TRIGGER homes_agree BEFORE INSERT ON homes
WHEN NEW.record_type <> 'all' AND EXISTS (
    SELECT 1 FROM homes WHERE tenant = NEW.tenant AND record_type = 'all' AND region <> NEW.region)
BEGIN SELECT RAISE(ABORT, 'the tenant has chosen one home for all record types'); END;
CREATE TRIGGER home_statements_once BEFORE UPDATE ON home_statements
BEGIN SELECT RAISE(ABORT, 'a statement is made once'); END;
CREATE TRIGGER home_statements_forever BEFORE DELETE ON home_statements
BEGIN SELECT RAISE(ABORT, 'a statement is made once'); END;
CREATE TRIGGER home_signed_once BEFORE UPDATE ON home_signed
BEGIN SELECT RAISE(ABORT, 'a statement is made once'); END;
CREATE TRIGGER home_signed_forever BEFORE DELETE ON home_signed
BEGIN SELECT RAISE(ABORT, 'a statement is made once'); END;

-- The audit chain only grows.
CREATE TRIGGER audit_chains_new BEFORE INSERT ON audit_chains
WHEN EXISTS (SELECT 1 FROM audit_chains WHERE chain = NEW.chain)
BEGIN SELECT RAISE(ABORT, 'the audit chain only grows'); END;
CREATE TRIGGER audit_events_new BEFORE INSERT ON audit_events
WHEN EXISTS (SELECT 1 FROM audit_events WHERE chain = NEW.chain AND number = NEW.number)
BEGIN SELECT RAISE(ABORT, 'the audit chain only grows'); END;
CREATE TRIGGER audit_chains_once BEFORE UPDATE ON audit_chains
BEGIN SELECT RAISE(ABORT, 'the audit chain only grows'); END;
CREATE TRIGGER audit_chains_forever BEFORE DELETE ON audit_chains
BEGIN SELECT RAISE(ABORT, 'the audit chain only grows'); END;
CREATE TRIGGER audit_events_once BEFORE UPDATE ON audit_events
BEGIN SELECT RAISE(ABORT, 'the audit chain only grows'); END;
CREATE TRIGGER audit_events_forever BEFORE DELETE ON audit_events
BEGIN SELECT RAISE(ABORT, 'the audit chain only grows'); END;
