-- Grants of every sort, default privileges, settings of the database.

-- By several grantors: each hands on what was handed to it.
CREATE TABLE app.granted (id integer, v text, secret text);
INSERT INTO app.granted VALUES (1, 'a', 'b');
ALTER TABLE app.granted OWNER TO lifeboat_owner;
GRANT SELECT, INSERT ON app.granted TO lifeboat_admin WITH GRANT OPTION;
GRANT UPDATE (v), REFERENCES (id), SELECT (id, v) ON app.granted TO lifeboat_reader;
GRANT SELECT (secret) ON app.granted TO lifeboat_admin WITH GRANT OPTION;
GRANT USAGE ON SCHEMA app TO lifeboat_admin;
SET SESSION AUTHORIZATION lifeboat_admin;
GRANT SELECT ON app.granted TO lifeboat_writer WITH GRANT OPTION;
GRANT INSERT ON app.granted TO lifeboat_reader;
GRANT SELECT (secret) ON app.granted TO "Lifeboat ""Röle"" 50%\ 'x'";
SET SESSION AUTHORIZATION lifeboat_writer;
GRANT SELECT ON app.granted TO PUBLIC;
RESET SESSION AUTHORIZATION;
REVOKE DELETE, TRUNCATE ON app.granted FROM lifeboat_owner;
-- The owner's own taken away altogether; everything given; each single right.
REVOKE ALL ON app.tree FROM postgres;
GRANT ALL ON app.keys TO lifeboat_writer;
GRANT SELECT ON app.chicken TO lifeboat_reader;
GRANT TRIGGER, TRUNCATE, REFERENCES ON app.chicken TO lifeboat_reader WITH GRANT OPTION;
GRANT SELECT ON app.plain_view, app.m_zebra, app.foreign_one, app.events, app.events_old TO lifeboat_reader;
GRANT INSERT ("The Id") ON app.over_view TO PUBLIC;
REVOKE SELECT ON app.over_view FROM PUBLIC;
\if :v17
GRANT MAINTAIN ON app.keys_by_index TO lifeboat_reader;
REVOKE MAINTAIN ON app.egg FROM postgres;
\endif
GRANT USAGE ON SEQUENCE app.plain_seq TO lifeboat_reader;
GRANT SELECT, UPDATE ON SEQUENCE app.full_seq TO lifeboat_writer WITH GRANT OPTION;
GRANT ALL ON SEQUENCE app.counters_c_seq, app."The b counter" TO lifeboat_writer;

REVOKE EXECUTE ON FUNCTION app.add(integer, integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.add(integer, integer, integer) TO lifeboat_reader WITH GRANT OPTION;
REVOKE ALL ON FUNCTION app.dollars() FROM PUBLIC, postgres;
GRANT EXECUTE ON PROCEDURE app.work(integer, text) TO lifeboat_writer;
REVOKE EXECUTE ON FUNCTION app.total(integer), app.percentile(float8, float8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app."Odd (name), ""x"" %s \"(integer, text) TO "Lifeboat ""Röle"" 50%\ 'x'" WITH GRANT OPTION;
REVOKE USAGE ON TYPE app.mood, app.address, app.textual, app.time_range FROM PUBLIC;
GRANT USAGE ON TYPE app.mood TO lifeboat_reader;
REVOKE ALL ON DOMAIN app.positive FROM PUBLIC;
GRANT USAGE ON DOMAIN app.positive TO lifeboat_writer WITH GRANT OPTION;
GRANT USAGE ON LANGUAGE "plMine" TO lifeboat_reader;
REVOKE USAGE ON LANGUAGE "plMine" FROM PUBLIC;
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw, bare TO lifeboat_writer;
GRANT USAGE ON FOREIGN SERVER bare_server, "Far ""away""" TO lifeboat_reader WITH GRANT OPTION;

GRANT CREATE, USAGE ON SCHEMA app TO lifeboat_writer WITH GRANT OPTION;
GRANT USAGE ON SCHEMA app, other TO lifeboat_reader;
GRANT ALL ON SCHEMA "Odd ""Schema"". /%\é" TO PUBLIC;
REVOKE ALL ON SCHEMA empty FROM lifeboat_admin;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO lifeboat_reader;

-- On what belongs to an extension or to the system.
REVOKE EXECUTE ON FUNCTION public.gen_salt(text), other.hstore_to_json(other.hstore) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.gen_salt(text) TO lifeboat_reader;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset() TO lifeboat_admin;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision) FROM PUBLIC;
GRANT SELECT (rolname, rolsuper) ON pg_catalog.pg_authid TO lifeboat_admin;
REVOKE SELECT ON pg_catalog.pg_settings FROM PUBLIC;
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
GRANT USAGE ON LANGUAGE plpgsql TO lifeboat_owner;
REVOKE USAGE ON TYPE pg_catalog.money FROM PUBLIC;

-- Default privileges: of the whole database and of schemas, for several roles, given and taken away.
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO lifeboat_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE lifeboat_owner GRANT ALL ON TABLES TO lifeboat_writer WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE lifeboat_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE lifeboat_owner REVOKE ALL ON TYPES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE lifeboat_owner REVOKE TRIGGER, TRUNCATE ON TABLES FROM lifeboat_owner;
ALTER DEFAULT PRIVILEGES FOR ROLE lifeboat_owner IN SCHEMA app GRANT EXECUTE ON FUNCTIONS TO lifeboat_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE "Lifeboat ""Röle"" 50%\ 'x'" IN SCHEMA "Odd ""Schema"". /%\é" GRANT USAGE, SELECT ON SEQUENCES TO lifeboat_reader WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE lifeboat_writer IN SCHEMA app GRANT INSERT ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE lifeboat_writer GRANT USAGE, CREATE ON SCHEMAS TO lifeboat_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE lifeboat_admin GRANT EXECUTE ON ROUTINES TO lifeboat_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA other GRANT USAGE ON TYPES TO lifeboat_reader;
\if :v18
ALTER DEFAULT PRIVILEGES FOR ROLE lifeboat_admin GRANT SELECT ON LARGE OBJECTS TO lifeboat_reader;
\endif
-- Made now, they get what the lines above say.
SET SESSION AUTHORIZATION lifeboat_writer;
CREATE TABLE app.made_under_defaults (id integer);
INSERT INTO app.made_under_defaults VALUES (1);
RESET SESSION AUTHORIZATION;
CREATE TABLE app.made_under_defaults_2 (id serial);
INSERT INTO app.made_under_defaults_2 DEFAULT VALUES;

-- The database's own. These change how values are printed for whoever does not see to it.
SELECT current_database() AS db \gset
COMMENT ON DATABASE :"db" IS E'every ''kind'' of thing\nin one';
ALTER DATABASE :"db" OWNER TO lifeboat_owner;
ALTER DATABASE :"db" CONNECTION LIMIT 500;
REVOKE TEMPORARY ON DATABASE :"db" FROM PUBLIC;
GRANT CREATE ON DATABASE :"db" TO lifeboat_writer WITH GRANT OPTION;
ALTER DATABASE :"db" SET DateStyle = 'SQL, DMY';
ALTER DATABASE :"db" SET IntervalStyle = 'sql_standard';
ALTER DATABASE :"db" SET TimeZone = 'Asia/Kathmandu';
ALTER DATABASE :"db" SET extra_float_digits = -5;
ALTER DATABASE :"db" SET bytea_output = 'escape';
ALTER DATABASE :"db" SET search_path = app, "Odd ""Schema"". /%\é", public;
ALTER DATABASE :"db" SET my.parameter = 'it''s a \ "value"';
ALTER DATABASE :"db" SET statement_timeout = '10min';
ALTER DATABASE :"db" SET temp_tablespaces = lifeboat_space, '';
ALTER ROLE lifeboat_reader IN DATABASE :"db" SET search_path = '';
ALTER ROLE lifeboat_reader IN DATABASE :"db" SET standard_conforming_strings = off;
ALTER ROLE "Lifeboat ""Röle"" 50%\ 'x'" IN DATABASE :"db" SET work_mem = '13MB';
