-- The key store and registry of homes in PostgreSQL, schema 2: the oldest here, and the same as SQLite's of this number.
-- Everything that orders text does so by octets: "C".
CREATE TABLE meta (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    schema      bigint NOT NULL,    -- what was written
    min_reader  bigint NOT NULL,    -- the oldest schema whose reader understands it
    min_writer  bigint NOT NULL,    -- the oldest schema whose writer may write it
    incarnation bytea  NOT NULL CHECK (octet_length(incarnation) = 16)
);

-- What writers take turns at: each locks its row for as long as its transaction lasts.
CREATE TABLE counters (
    name  text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL           -- changes: how many there were
);
INSERT INTO counters VALUES ('changes', 0), ('homes', 0);

CREATE TABLE keys (
    kind           bigint NOT NULL,
    region         text COLLATE "C" NOT NULL,
    tenant         text COLLATE "C" NOT NULL,
    record_type    text COLLATE "C" NOT NULL,
    period         text COLLATE "C" NOT NULL,
    version        bigint NOT NULL,
    generation     bigint NOT NULL,
    state          bigint NOT NULL,
    name           bytea  NOT NULL UNIQUE,
    commitment     bytea  NOT NULL,
    parent_version bigint NOT NULL,
    sealed         bytea  NOT NULL,
    -- From a sequence, so that nobody waits for it; the highest that was committed never goes back.
    number         bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    PRIMARY KEY (kind, region, tenant, record_type, period, version)
);

CREATE TABLE ledger (
    region    text COLLATE "C" NOT NULL,
    number    bigint NOT NULL,      -- from 1, without a gap
    kind      bigint NOT NULL,      -- what it speaks of
    body      bytea  NOT NULL,      -- signed: number, predecessor, time, content
    signature bytea  NOT NULL,
    PRIMARY KEY (region, number)
);
CREATE INDEX ledger_kinds ON ledger (region, kind, number);

-- The newest tombstone of a key: a row of a lower generation is an old one put back.
CREATE TABLE floors (
    name       bytea  NOT NULL PRIMARY KEY,
    generation bigint NOT NULL,
    entry      bigint NOT NULL      -- its number in the ledger of the key's region
);

-- Which entry of the ledger took a leaf from a key.
CREATE TABLE tombstones (
    name  bytea  NOT NULL,
    leaf  bytea  NOT NULL,          -- 8 octets, big-endian
    entry bigint NOT NULL,
    PRIMARY KEY (name, leaf)
);

-- No kind: the region's ledger grew.
CREATE TABLE changes (
    number      bigint PRIMARY KEY,
    region      text COLLATE "C" NOT NULL,
    kind        bigint,
    tenant      text COLLATE "C",
    record_type text COLLATE "C",
    period      text COLLATE "C"
);

CREATE TABLE writers (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
);

CREATE TABLE homes (
    tenant      text COLLATE "C" NOT NULL,
    record_type text COLLATE "C" NOT NULL,  -- a type, or 'all'
    region      text COLLATE "C" NOT NULL,
    chosen      bigint NOT NULL,            -- microseconds since 1970
    PRIMARY KEY (tenant, record_type)
);

CREATE TABLE home_statements (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body      bytea NOT NULL,
    signature bytea NOT NULL
);

-- Which statements speak of which choice: the home's own (1), and that of the region where it was chosen (0). A choice
-- with the latter alone is pending; one with neither is none of ours.
CREATE TABLE home_signed (
    tenant      text COLLATE "C" NOT NULL,
    record_type text COLLATE "C" NOT NULL,
    own         bigint NOT NULL CHECK (own IN (0, 1)),
    statement   bigint NOT NULL REFERENCES home_statements (id),
    PRIMARY KEY (tenant, record_type, own),
    FOREIGN KEY (tenant, record_type) REFERENCES homes (tenant, record_type)
);

CREATE TABLE audit_chains (
    chain        bytea NOT NULL PRIMARY KEY,
    region       text COLLATE "C" NOT NULL,
    jurisdiction text COLLATE "C" NOT NULL,
    begun        bigint NOT NULL,
    actor        text   NOT NULL,
    signature    bytea  NOT NULL
);

CREATE TABLE audit_events (
    chain  bytea  NOT NULL REFERENCES audit_chains (chain),
    number bigint NOT NULL,
    body   text   NOT NULL,
    digest bytea  NOT NULL,
    PRIMARY KEY (chain, number)
);

-- Triggers look up tables where they were made, whatever the search path of whoever sets them off.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation'; END $$;

-- Numbered under a lock that lasts until the transaction ends: numbers are given in the order in which changes become
-- visible.
CREATE FUNCTION number_change() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    UPDATE counters SET value = value + 1 WHERE name = 'changes' RETURNING value INTO STRICT NEW.number;
    RETURN NEW;
END $$;
CREATE TRIGGER changes_numbered BEFORE INSERT ON changes FOR EACH ROW EXECUTE FUNCTION number_change();

CREATE FUNCTION follow_ledger() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    IF NEW.number <> 1 + (SELECT coalesce(max(number), 0) FROM ledger WHERE region = NEW.region) THEN
        RAISE EXCEPTION 'the ledger grows by one entry after the other' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER ledger_new BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION follow_ledger();

CREATE FUNCTION agree_home() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    IF NEW.record_type <> 'all' AND EXISTS (
        SELECT 1 FROM homes WHERE tenant = NEW.tenant AND record_type = 'all' AND region <> NEW.region)
    THEN
        RAISE EXCEPTION 'the tenant has chosen one home for all record types'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER homes_agree BEFORE INSERT ON homes FOR EACH ROW EXECUTE FUNCTION agree_home();

-- A count does not go back, and who takes turns does not change.
CREATE TRIGGER counters_rise BEFORE UPDATE ON counters FOR EACH ROW
WHEN (NEW.value < OLD.value OR NEW.name <> OLD.name)
EXECUTE FUNCTION refuse('a count does not go back');

CREATE TRIGGER floors_rise BEFORE UPDATE ON floors FOR EACH ROW
WHEN (NEW.generation < OLD.generation OR NEW.name <> OLD.name)
EXECUTE FUNCTION refuse('what was taken from a key is not given back');

CREATE TRIGGER keys_rise BEFORE UPDATE ON keys FOR EACH ROW
WHEN (NEW.generation <= OLD.generation
    OR (NEW.name, NEW.kind, NEW.region, NEW.tenant, NEW.record_type, NEW.period, NEW.version, NEW.number)
        IS DISTINCT FROM
       (OLD.name, OLD.kind, OLD.region, OLD.tenant, OLD.record_type, OLD.period, OLD.version, OLD.number))
EXECUTE FUNCTION refuse('the generation of a key rises');

-- Nothing is deleted, one by one or all at once; and what is not named above is not updated either.
DO $$
DECLARE
    guarded text[][] := ARRAY[
        ['keys', 'a key that is destroyed leaves its row', 'rises'],
        ['floors', 'what was taken from a key is not given back', 'rises'],
        ['counters', 'a count does not go back', 'rises'],
        ['meta', 'a store is one', 'rises'],
        ['ledger', 'the ledger only grows', ''],
        ['tombstones', 'what was taken from a key is not given back', ''],
        ['changes', 'what changed has changed', ''],
        ['writers', 'a writer number is given once', ''],
        ['homes', 'a home is chosen once', ''],
        ['home_statements', 'a statement is made once', ''],
        ['home_signed', 'a statement is made once', ''],
        ['audit_chains', 'the audit chain only grows', ''],
        ['audit_events', 'the audit chain only grows', '']];
    one text[];
BEGIN
    FOREACH one SLICE 1 IN ARRAY guarded LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse(%L)',
            one[1] || '_forever', one[1], one[2]);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse(%L)',
            one[1] || '_whole', one[1], one[2]);
        IF one[3] = '' THEN
            EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION refuse(%L)',
                one[1] || '_once', one[1], one[2]);
        END IF;
    END LOOP;
END $$;
