-- Schemas, extensions, languages, transforms, access methods.

CREATE SCHEMA app AUTHORIZATION lifeboat_owner;
CREATE SCHEMA other;
CREATE SCHEMA "Odd ""Schema"". /%\é" AUTHORIZATION "Lifeboat ""Röle"" 50%\ 'x'";
CREATE SCHEMA "select";
CREATE SCHEMA empty AUTHORIZATION lifeboat_admin;
-- A foreign key's rows are looked up as the owner of the table referred to.
GRANT USAGE ON SCHEMA app TO lifeboat_writer;
COMMENT ON SCHEMA app IS 'where the application lives';
COMMENT ON SCHEMA "Odd ""Schema"". /%\é" IS E'it''s "odd": \\ back\nsecond line\r\nthird\tend';
COMMENT ON SCHEMA public IS 'not the standard words';

CREATE EXTENSION citext SCHEMA other;
CREATE EXTENSION pgcrypto SCHEMA public;
CREATE EXTENSION hstore SCHEMA other;
CREATE EXTENSION pg_trgm;
CREATE EXTENSION ltree SCHEMA "Odd ""Schema"". /%\é";
CREATE EXTENSION btree_gist;
CREATE EXTENSION btree_gin SCHEMA other;
CREATE EXTENSION tablefunc;
CREATE EXTENSION intarray;
CREATE EXTENSION "uuid-ossp" SCHEMA app;
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION file_fdw;
-- The second needs the first.
CREATE EXTENSION cube;
CREATE EXTENSION earthdistance;
COMMENT ON EXTENSION citext IS 'not its own words';

-- A language with another's parts. Its functions are its own: pg_dump leaves them out where they are the system's.
CREATE FUNCTION app.my_handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION app.my_inline(internal) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION app.my_validator(oid) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE TRUSTED LANGUAGE "plMine" HANDLER app.my_handler INLINE app.my_inline VALIDATOR app.my_validator;
CREATE LANGUAGE plbare HANDLER app.my_handler;
COMMENT ON LANGUAGE "plMine" IS 'plpgsql under another name';
ALTER LANGUAGE "plMine" OWNER TO lifeboat_owner;

-- Never called; what matters is that they are there.
CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));
CREATE TRANSFORM FOR text LANGUAGE plpgsql (TO SQL WITH FUNCTION textrecv(internal));
COMMENT ON TRANSFORM FOR int LANGUAGE sql IS 'a transform';

CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE ACCESS METHOD gist2 TYPE INDEX HANDLER gisthandler;
COMMENT ON ACCESS METHOD gist2 IS 'gist under another name';
