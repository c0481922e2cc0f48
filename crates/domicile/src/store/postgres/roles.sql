-- Roles of a PostgreSQL key store, each with the least that its work needs. Run it as the owner of the tables, who may
-- also create roles, after `domicile store migrate`, once a schema and again after each migration:
--
--     psql "postgres://owner@host/database" --set ON_ERROR_STOP=1 --file roles.sql
--
-- Then give one of them to the role that a program logs in with: GRANT domicile_writer TO recorder;
--
-- domicile_reader    opens: reads everything, and appends to the audit chain
-- domicile_writer    seals as well: makes keys and writes rows, chooses homes; deletes nothing, and takes nothing from keys for good
-- domicile_officer   erases, expires, holds and replays as well: what goes through the ledger
--
-- None of them changes the schema: that is the owner's, with whom no program runs.
DO $$
DECLARE
    here text := current_schema();
    role text;
    one text;
BEGIN
    FOREACH role IN ARRAY ARRAY['domicile_reader', 'domicile_writer', 'domicile_officer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;

    -- What everybody has without being asked, nobody needs.
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', here);
    FOREACH one IN ARRAY ARRAY[
        'meta', 'counters', 'keys', 'ledger', 'floors', 'tombstones', 'changes', 'writers', 'homes', 'home_statements',
        'home_signed', 'audit_chains', 'audit_events'] LOOP
        EXECUTE format('REVOKE ALL ON %I.%I FROM PUBLIC, domicile_reader, domicile_writer, domicile_officer', here, one);
        EXECUTE format('GRANT SELECT ON %I.%I TO domicile_reader, domicile_writer, domicile_officer', here, one);
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO domicile_reader, domicile_writer, domicile_officer', here);
END $$;

GRANT INSERT ON audit_chains, audit_events TO domicile_reader, domicile_writer, domicile_officer;

GRANT INSERT ON keys, changes, writers, homes, home_statements, home_signed TO domicile_writer, domicile_officer;
GRANT UPDATE (generation, state, commitment, parent_version, sealed) ON keys TO domicile_writer, domicile_officer;
GRANT UPDATE (value) ON counters TO domicile_writer, domicile_officer;

GRANT INSERT ON ledger, floors, tombstones TO domicile_officer;
GRANT UPDATE (generation, entry) ON floors TO domicile_officer;
GRANT UPDATE (incarnation) ON meta TO domicile_officer;
