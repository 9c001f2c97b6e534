-- Collations, conversions, types of all sorts, domains.

CREATE COLLATION app.c_like (provider = libc, locale = 'C');
CREATE COLLATION app.c_utf8 (provider = libc, lc_collate = 'C.UTF-8', lc_ctype = 'C');
CREATE COLLATION app."Deutsch ä" (provider = icu, locale = 'de-u-co-phonebk');
CREATE COLLATION app.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION other.copied FROM "C";
COMMENT ON COLLATION app.any_case IS 'upper and lower case are the same';
ALTER COLLATION app.c_utf8 OWNER TO lifeboat_owner;
\if :v16
CREATE COLLATION app.with_rules (provider = icu, locale = 'und', rules = '&a < g');
\endif
\if :v17
CREATE COLLATION app.builtin (provider = builtin, locale = 'C.UTF-8');
\endif
\if :v18
CREATE COLLATION app.unicode_fast (provider = builtin, locale = 'PG_UNICODE_FAST');
\endif

CREATE CONVERSION app.my_latin1 FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE DEFAULT CONVERSION app."My Default" FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1;
COMMENT ON CONVERSION app.my_latin1 IS 'a conversion';
ALTER CONVERSION app.my_latin1 OWNER TO lifeboat_writer;

-- Enums. Labels put in between get an odd place in the catalog.
CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'happy');
ALTER TYPE app.mood ADD VALUE 'o''clock "quoted" \ back' BEFORE 'ok';
ALTER TYPE app.mood ADD VALUE 'für immer 日本' AFTER 'sad';
ALTER TYPE app.mood ADD VALUE 'Last, %s {braces}';
ALTER TYPE app.mood RENAME VALUE 'happy' TO 'glad';
CREATE TYPE app.no_labels AS ENUM ();
CREATE TYPE app.empty_label AS ENUM ('', ' ');
COMMENT ON TYPE app.mood IS 'how one feels';
ALTER TYPE app.mood OWNER TO lifeboat_owner;

-- Composites: nested, with arrays of themselves inside others, collations, dropped and renamed attributes.
CREATE TYPE app.point3 AS (x double precision, y double precision, z double precision);
CREATE TYPE app.address AS (
    street text COLLATE "C", "House Number" varchar(10), gone integer, at app.point3, history app.point3[], mood app.mood
);
ALTER TYPE app.address DROP ATTRIBUTE gone;
ALTER TYPE app.address ADD ATTRIBUTE "zip ""code""" character(5) COLLATE app.c_like;
ALTER TYPE app.point3 RENAME ATTRIBUTE z TO height;
CREATE TYPE app.empty_composite AS ();
COMMENT ON TYPE app.address IS 'an address';
COMMENT ON COLUMN app.address."House Number" IS 'may have letters';
ALTER TYPE app.address OWNER TO lifeboat_writer;

-- Domains.
CREATE DOMAIN app.positive AS integer DEFAULT 1 NOT NULL CONSTRAINT above_zero CHECK (VALUE > 0) CHECK (VALUE < 1000000);
CREATE DOMAIN app.small AS app.positive CONSTRAINT "below ten %" CHECK (VALUE < 10);
CREATE DOMAIN app.label AS varchar(20) COLLATE app."Deutsch ä" DEFAULT 'none'::varchar CHECK (VALUE <> '');
CREATE DOMAIN app.labels AS app.label[] CHECK (array_length(VALUE, 1) < 5);
CREATE DOMAIN app.upright AS app.point3 CHECK ((VALUE).height > 0);
CREATE DOMAIN app.price AS numeric(12, 2);
ALTER DOMAIN app.price ADD CONSTRAINT no_gift CHECK (VALUE > 0) NOT VALID;
CREATE DOMAIN app.email AS other.citext CHECK (VALUE ~ '^[^@\s]+@[^@]+$'::other.citext);
CREATE DOMAIN app.stamp AS timestamptz(3) DEFAULT now();
\if :v17
CREATE DOMAIN app.never_null AS text CONSTRAINT "not null named" NOT NULL;
\endif
COMMENT ON DOMAIN app.positive IS 'above zero';
COMMENT ON CONSTRAINT above_zero ON DOMAIN app.positive IS 'really above';
ALTER DOMAIN app.label OWNER TO lifeboat_reader;

-- Ranges; one with a function of its own for the distance, one made canonical by a built-in function.
CREATE FUNCTION app.time_distance(time, time) RETURNS double precision
    LANGUAGE sql STRICT IMMUTABLE AS 'SELECT extract(epoch FROM ($1 - $2))';
CREATE TYPE app.time_range AS RANGE (subtype = time, subtype_diff = app.time_distance);
CREATE TYPE app.text_range AS RANGE (subtype = text, subtype_opclass = text_pattern_ops, collation = "C");
CREATE TYPE app.float_range AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TYPE app.whole_range;
CREATE FUNCTION app.whole_range_canonical(app.whole_range) RETURNS app.whole_range
    LANGUAGE internal IMMUTABLE STRICT AS 'int4range_canonical';
CREATE TYPE app.whole_range AS RANGE (subtype = integer, subtype_opclass = int4_ops, canonical = app.whole_range_canonical);
CREATE TYPE app.mood_range AS RANGE (subtype = app.mood);
\if :v14
CREATE TYPE app.date_range2 AS RANGE (subtype = date, multirange_type_name = app."Many Dates");
CREATE TYPE app.money_range AS RANGE (subtype = money, multirange_type_name = other.moneys);
\endif
COMMENT ON TYPE app.time_range IS 'part of a day';
ALTER TYPE app.time_range OWNER TO lifeboat_writer;

-- Base types, out of built-in functions.
CREATE TYPE app.textual;
CREATE FUNCTION app.textual_in(cstring) RETURNS app.textual LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'textin';
CREATE FUNCTION app.textual_out(app.textual) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'textout';
CREATE FUNCTION app.textual_recv(internal) RETURNS app.textual LANGUAGE internal STABLE STRICT AS 'textrecv';
CREATE FUNCTION app.textual_send(app.textual) RETURNS bytea LANGUAGE internal STABLE STRICT AS 'textsend';
CREATE TYPE app.textual (
    INPUT = app.textual_in, OUTPUT = app.textual_out, RECEIVE = app.textual_recv, SEND = app.textual_send,
    TYPMOD_IN = varchartypmodin, TYPMOD_OUT = varchartypmodout,
    INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = extended, CATEGORY = 'S', PREFERRED = false,
    DEFAULT = 'zero ''0''', DELIMITER = ';', COLLATABLE = true
);
CREATE TYPE app.number;
CREATE FUNCTION app.number_in(cstring) RETURNS app.number LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION app.number_out(app.number) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE app.number (INPUT = app.number_in, OUTPUT = app.number_out, LIKE = integer, CATEGORY = 'x', PREFERRED = true, DEFAULT = '42');
CREATE TYPE app.pair;
CREATE FUNCTION app.pair_in(cstring) RETURNS app.pair LANGUAGE internal IMMUTABLE STRICT AS 'point_in';
CREATE FUNCTION app.pair_out(app.pair) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'point_out';
CREATE TYPE app.pair (INPUT = app.pair_in, OUTPUT = app.pair_out, INTERNALLENGTH = 16, ALIGNMENT = double, STORAGE = plain, ELEMENT = float8);
\if :v14
CREATE TYPE app.document;
CREATE FUNCTION app.document_in(cstring) RETURNS app.document LANGUAGE internal IMMUTABLE STRICT AS 'jsonb_in';
CREATE FUNCTION app.document_out(app.document) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'jsonb_out';
CREATE TYPE app.document (INPUT = app.document_in, OUTPUT = app.document_out, SUBSCRIPT = jsonb_subscript_handler, STORAGE = main);
\endif
COMMENT ON TYPE app.textual IS 'text, nearly';
ALTER TYPE app.number OWNER TO lifeboat_owner;
-- Never finished.
CREATE TYPE app.only_a_shell;
