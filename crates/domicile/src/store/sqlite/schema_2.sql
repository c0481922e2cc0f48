-- Schema 2: the ledger of what regions said, and the numbers by which processes follow each other.

-- How many rows were ever inserted: what a store put back in time is known by, beside its changes.
ALTER TABLE meta ADD COLUMN inserts INTEGER NOT NULL DEFAULT 0;
UPDATE meta SET inserts = (SELECT count(*) FROM keys);
CREATE TRIGGER keys_counted AFTER INSERT ON keys
BEGIN UPDATE meta SET inserts = inserts + 1; END;

CREATE TABLE ledger (
    region    TEXT    NOT NULL,
    number    INTEGER NOT NULL,     -- from 1, without a gap
    kind      INTEGER NOT NULL,     -- what it speaks of
    body      BLOB    NOT NULL,     -- signed: number, predecessor, time, content
    signature BLOB    NOT NULL,
    PRIMARY KEY (region, number)
) STRICT, WITHOUT ROWID;

-- The newest tombstone of a key: a row of a lower generation is an old one put back.
CREATE TABLE floors (
    name       BLOB    NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    entry      INTEGER NOT NULL     -- its number in the ledger of the key's region
) STRICT, WITHOUT ROWID;

-- Which entry of the ledger took a leaf from a key.
CREATE TABLE tombstones (
    name  BLOB    NOT NULL,
    leaf  BLOB    NOT NULL,         -- 8 octets, big-endian
    entry INTEGER NOT NULL,
    PRIMARY KEY (name, leaf)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: numbers do not come again. No kind: the region's ledger grew.
CREATE TABLE changes (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    region      TEXT NOT NULL,
    kind        INTEGER,
    tenant      TEXT,
    record_type TEXT,
    period      TEXT
) STRICT;

CREATE INDEX ledger_kinds ON ledger (region, kind, number);
CREATE TRIGGER ledger_new BEFORE INSERT ON ledger
WHEN NEW.number <> 1 + (SELECT coalesce(max(number), 0) FROM ledger WHERE region = NEW.region)
BEGIN SELECT RAISE(ABORT, 'the ledger grows by one entry after the other'); END;
CREATE TRIGGER ledger_once BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER ledger_forever BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER floors_rise BEFORE UPDATE ON floors
WHEN NEW.generation < OLD.generation OR NEW.name <> OLD.name
BEGIN SELECT RAISE(ABORT, 'what was taken from a key is not given back'); END;
CREATE TRIGGER floors_forever BEFORE DELETE ON floors
BEGIN SELECT RAISE(ABORT, 'what was taken from a key is not given back'); END;
CREATE TRIGGER tombstones_once BEFORE UPDATE ON tombstones
BEGIN SELECT RAISE(ABORT, 'what was taken from a key is not given back'); END;
CREATE TRIGGER tombstones_forever BEFORE DELETE ON tombstones
BEGIN SELECT RAISE(ABORT, 'what was taken from a key is not given back'); END;
CREATE TRIGGER keys_rise BEFORE UPDATE ON keys
WHEN NEW.generation <= OLD.generation OR NEW.name <> OLD.name
BEGIN SELECT RAISE(ABORT, 'the generation of a key rises'); END;
CREATE TRIGGER keys_forever BEFORE DELETE ON keys
BEGIN SELECT RAISE(ABORT, 'a key that is destroyed leaves its row'); END;
