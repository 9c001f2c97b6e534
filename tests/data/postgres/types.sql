-- Every built-in type with its extreme values; rows that are long, wide, or empty.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET TimeZone = 'UTC';
SELECT v >= 140000 AS v14, v >= 160000 AS v16, v >= 170000 AS v17
  FROM (SELECT current_setting('server_version_num')::int AS v) AS server
\gset

CREATE TABLE numbers (
    id integer PRIMARY KEY, s smallint, i integer, b bigint, r real, d double precision, n numeric, n2 numeric(1000, 500), m money, bo boolean
);
INSERT INTO numbers VALUES
    (1, -32768, -2147483648, -9223372036854775808, 'NaN', 'NaN', 'NaN', 'NaN', '-92233720368547758.08', true),
    (2, 32767, 2147483647, 9223372036854775807, 'Infinity', 'Infinity', 0, 0, '92233720368547758.07', false),
    (3, 0, 0, 0, '-Infinity', '-Infinity', -0.0, 0.1, '0', NULL),
    (4, -1, -1, -1, '-0', '-0', 1e-1000, 1e-500, '-0.01', true),
    (5, 1, 1, 1, 1.17549435e-38, 2.2250738585072014e-308, 1e1000, 1e499, '1234567.89', true),
    (6, 1, 1, 1, 3.4028235e38, 1.7976931348623157e308, 1.10, 1.10, NULL, NULL),
    (7, 1, 1, 1, 1e-45, 4.9406564584124654e-324, 1.1000000, 123.456, NULL, NULL),
    (8, 1, 1, 1, 0.1, 0.1, 0.00000000, 0, NULL, NULL),
    (9, 1, 1, 1, 16777217, 9007199254740993, 12345678901234567890.12345678901234567890, 1, NULL, NULL),
    (10, 1, 1, 1, 1.0 / 3, 1.0::float8 / 3, ('1' || repeat('0123456789', 5000))::numeric, 1, NULL, NULL),
    (11, 1, 1, 1, 0.3, 0.1::float8 + 0.2::float8, ('-0.' || repeat('0', 3000) || repeat('9', 8000))::numeric, 1, NULL, NULL),
    (12, 1, 1, 1, 9.9999999e37, 1e22, repeat('9', 131072)::numeric, 1, NULL, NULL),
    (13, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
\if :v14
INSERT INTO numbers (id, n) VALUES (14, 'Infinity'), (15, '-Infinity');
\endif

CREATE TABLE times (
    id integer PRIMARY KEY, d date, t time, tz timetz, ts timestamp, tstz timestamptz, i interval, t3 time(3), ts0 timestamp(0), iy interval year to month, ids interval day to second(2)
);
INSERT INTO times VALUES
    (1, 'infinity', '24:00:00', '24:00:00-15:59', 'infinity', 'infinity', '178000000 years', '24:00:00', 'infinity', '1 year', '1 day'),
    (2, '-infinity', '00:00:00', '00:00:00+15:59', '-infinity', '-infinity', '-178000000 years', '00:00:00', '-infinity', '-1 year', '-1 day'),
    (3, '4713-01-01 BC', '23:59:59.999999', '23:59:59.999999+05:30', '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC', '-2147483648 days', '23:59:59.999', '2026-01-01', '0', '00:00:00.01'),
    (4, '5874897-12-31', '12:34:56.000001', '12:34:56.000001-09:30:15', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '2147483647 days', NULL, NULL, NULL, NULL),
    (5, '0001-01-01', '00:00:00.000001', '00:00:00.000001+00', '0001-12-31 23:59:59.999999 BC', '0001-12-31 23:59:59.999999+00 BC', '2147483647 hours', NULL, NULL, NULL, NULL),
    (6, '0001-12-31 BC', '01:02:03', '01:02:03+01', '1969-12-31 23:59:59.999999', '2026-03-29 01:30:00+00', '-2147483647 hours', NULL, NULL, NULL, NULL),
    (7, '2024-02-29', '01:02:03', '01:02:03+01', '2000-01-01', '2026-10-25 00:30:00+00', '1 year -2 months 3 days -04:05:06.789', NULL, NULL, NULL, NULL),
    (8, '1582-10-10', '01:02:03', '01:02:03+01', '1900-01-01', '2026-10-25 01:30:00+00', '-1 year 2 months -3 days 04:05:06.000001', NULL, NULL, NULL, NULL),
    (9, '10000-01-01', '01:02:03', '01:02:03+01', '10000-01-01', '10000-01-01 00:00+00', '0', NULL, NULL, NULL, NULL),
    (10, '1970-01-01', '01:02:03', '01:02:03+01', '1883-11-18 12:03:57', '1883-11-18 12:03:57+00', '-00:00:00.000001', NULL, NULL, NULL, NULL),
    (11, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (12, NULL, NULL, NULL, NULL, NULL, '30 days', NULL, NULL, NULL, NULL),
    (13, NULL, NULL, NULL, NULL, NULL, '1 month', NULL, NULL, NULL, NULL),
    (14, NULL, NULL, NULL, NULL, NULL, '720 hours', NULL, NULL, NULL, NULL),
    (15, NULL, NULL, NULL, NULL, NULL, '-1 mons +1 day -00:00:01', NULL, NULL, NULL, NULL);
\if :v17
INSERT INTO times (id, i) VALUES (16, 'infinity'), (17, '-infinity');
\endif

CREATE TABLE texts (id integer PRIMARY KEY, t text, v varchar(40), c character(10), n name, b "char", empty_not_null text NOT NULL DEFAULT '');
INSERT INTO texts VALUES
    (1, '', '', '', '', ''), (2, NULL, NULL, NULL, NULL, NULL), (3, '\N', '\N', '\N', '\N', '\'), (4, '\.', '\.', '\.', '\.', '.'),
    (5, E'\\.\n', E'a\tb', E'a\nb', E'a\rb', E'\n'), (6, E'line one\nline two\r\nline three\rend\n', E'\r\n', E'\r', E'\n', E'\r'),
    (7, E'\b\f\v\a\x01\x7f\x1b[31m', E'\x01', E'\x1f', E'\x7f', E'\x01'), (8, '\\N \\t \t \x41 \101', 'NULL', 'null', 'NULL', 'N'),
    (9, 'é 日本語 🚢 ñ שלום ‮‬ ​', '🚢🚢', '日本', 'ü', 'x'), (10, U&'\FEFF\0301\200B\2028\+10FFFF', 'x', 'trail     ', '  lead', ' '),
    (11, E'\\.\n\\.\r\n\\N\n', E'\\', E'\\\\', '"quoted", ''so''', ''''), (12, '-- ; DROP TABLE texts; $$ $1 %s :var ', '{}', '(,)', '{NULL}', '{'),
    (13, E'\n\n\n', E'\t\t', '	', 'x', E'\t'), (14, repeat(E'\\', 1000), '"', 'x', repeat('n', 63), '"'), (15, repeat(E'\n', 1000), ',', ',', ',', ',');
CREATE TABLE every_char (code integer, c "char", t text);
INSERT INTO every_char SELECT g, CASE WHEN g < 128 THEN chr(g)::"char" ELSE (g - 256)::"char" END, chr(g) FROM generate_series(1, 255) AS g;
INSERT INTO every_char SELECT g, NULL, chr(g) FROM generate_series(256, 70000) AS g WHERE g NOT BETWEEN 55296 AND 57343;
INSERT INTO every_char VALUES (0, 0::"char", NULL);

CREATE TABLE bytes (id integer PRIMARY KEY, b bytea, bi bit(8), vb bit varying, vb5 bit varying(5));
INSERT INTO bytes VALUES (1, '', B'00000000', B'', B''), (2, NULL, NULL, NULL, NULL), (3, '\x00', B'11111111', B'1', B'10101'), (4, '\x000000ff5c2e0a5c4e0a', B'10000001', repeat('10', 5000)::bit varying, B'0'),
    (5, (SELECT string_agg(decode(lpad(to_hex(g), 2, '0'), 'hex'), '' ORDER BY g) FROM generate_series(0, 255) AS g), NULL, NULL, NULL),
    (6, '\x5c783030', NULL, NULL, NULL), (7, decode(repeat('00', 100000), 'hex'), NULL, NULL, NULL), (8, 'text, really'::bytea, NULL, NULL, NULL);

CREATE TABLE networks (id integer PRIMARY KEY, i inet, c cidr, m macaddr, m8 macaddr8, u uuid);
INSERT INTO networks VALUES
    (1, '0.0.0.0', '0.0.0.0/0', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00', '00000000-0000-0000-0000-000000000000'),
    (2, '255.255.255.255', '255.255.255.255/32', 'ff:ff:ff:ff:ff:ff', 'ff:ff:ff:ff:ff:ff:ff:ff', 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
    (3, '::', '::/0', '08-00-2b-01-02-03', '08002b:fffe010203', '{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}'),
    (4, '::ffff:1.2.3.4/96', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', '08002b010203', '08-00-2b-01-02-03-04-05', NULL),
    (5, '192.168.1.5/24', '192.168.0.0/16', NULL, NULL, NULL), (6, '192.168.1.5/32', '10/8', NULL, NULL, NULL), (7, 'fe80::1/0', 'fe80::/10', NULL, NULL, NULL);

CREATE TABLE documents (id integer PRIMARY KEY, j json, b jsonb, x xml, p jsonpath);
INSERT INTO documents VALUES
    (1, '{"a":1,  "a": 2, "b" : [1.0, 1e400, -0], "c": null}', '{"a":1,  "a": 2, "b" : [1.0, 1e40, -0], "c": null}', '<a b="c">d &amp; e<!-- x --><![CDATA[<>]]></a>', '$.a[*] ? (@ > 1)'),
    (2, '"\u0000 \ud83d\udea2 \n \t \\ \" \/ é"', '"\ud83d\udea2 \n \t \\ \" \/ é"', 'only text', 'strict $."a b"[last]'),
    (3, 'null', 'null', '', '$'), (4, '[]', '[]', '<?xml version="1.0" encoding="UTF-8"?><r/>', '$[0 to last].type()'), (5, '{}', '{}', '<a/><b/> and text', 'lax $.x like_regex "^a\\d" flag "i"'),
    (6, E'\n\t{ "k"\n:\r\n1 }\n', '{"": "", " ": [[], {}, [[]]], "\\": "\\."}', E'<a>\n\\.\n\\N\n</a>', NULL), (7, NULL, NULL, NULL, NULL),
    (8, ('1' || repeat('0', 2000))::json, ('1' || repeat('0', 2000))::jsonb, NULL, NULL), (9, 'true', ('"' || repeat('x', 300000) || '"')::jsonb, NULL, NULL);

CREATE TABLE shapes (id integer PRIMARY KEY, p point, l line, ls lseg, b box, pa path, po polygon, c circle);
INSERT INTO shapes VALUES
    (1, '(0,0)', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(0,0),1>'),
    (2, '(NaN,Infinity)', '{0,1,-0}', '[(NaN,0),(-Infinity,1)]', '(Infinity,Infinity),(-Infinity,-Infinity)', '((0,0),(1,1))', '((NaN,NaN))', '<(Infinity,NaN),Infinity>'),
    (3, '(-0,1e-300)', '{1e300,-1e-300,0.1}', '[(1e308,1e-308),(0.1,0.2)]', '(0.1,0.3),(0,-0)', '[(0.1,0.2)]', '((1e308,1e308),(-1e308,-1e308))', '<(0.1,0.2),0>'),
    (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE searches (id integer PRIMARY KEY, v tsvector, q tsquery);
INSERT INTO searches VALUES (1, '', ''), (2, '''a b'':1A,2B,16383C ''it''''s'':3 ''back\\slash'':4', '!''a b'':*AB & (''it''''s'' | c) <-> d <3> e'), (3, to_tsvector('english', 'The quick brown foxes jumped'), to_tsquery('english', 'fox & !dog')), (4, NULL, NULL);

CREATE TABLE ranges (id integer PRIMARY KEY, i4 int4range, i8 int8range, n numrange, ts tsrange, tz tstzrange, d daterange);
INSERT INTO ranges VALUES
    (1, 'empty', 'empty', 'empty', 'empty', 'empty', 'empty'), (2, '(,)', '(,)', '(,)', '(,)', '(,)', '(,)'),
    (3, '[1,5]', '(1,5]', '(1.10,5.0]', '["2026-01-01 00:00","2026-01-02 00:00"]', '(infinity,)', '[4713-01-01 BC,infinity)'),
    (4, '[-2147483648,2147483646]', '[-9223372036854775808,)', '[NaN,NaN]', '[-infinity,infinity]', '("4713-01-01 00:00+00 BC",]', '[,infinity]'), (5, NULL, NULL, NULL, NULL, NULL, NULL);
\if :v14
CREATE TABLE multiranges (id integer PRIMARY KEY, i4 int4multirange, i8 int8multirange, n nummultirange, ts tsmultirange, tz tstzmultirange, d datemultirange, a int4multirange[]);
INSERT INTO multiranges VALUES (1, '{}', '{}', '{}', '{}', '{}', '{}', '{}'), (2, '{[1,2],[4,5),(7,)}', '{(,)}', '{(,1.10],[2,3)}', '{["2026-01-01 00:00",infinity]}', '{(,"2026-01-02 00:00+00")}', '{[2026-01-01,2026-01-03],[2027-01-01,]}', ARRAY['{}', '{[1,2]}', NULL]::int4multirange[]);
\endif

-- Names of things: they are printed by name, so the thing must be there when the row is read, whatever the search_path.
CREATE SCHEMA "Other Schema";
CREATE TABLE "Other Schema"."Its Table" (id integer);
CREATE FUNCTION "Other Schema".overloaded(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION "Other Schema"."Only One"(text, "Other Schema"."Its Table") RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE TYPE "Other Schema"."Its Type" AS ENUM ('a');
CREATE OPERATOR "Other Schema".=== (FUNCTION = int4eq, LEFTARG = integer, RIGHTARG = integer);
CREATE TEXT SEARCH CONFIGURATION "Other Schema"."Its Words" (COPY = simple);
CREATE TEXT SEARCH DICTIONARY "Other Schema"."Its Dict" (TEMPLATE = simple);
CREATE TABLE objects (id integer PRIMARY KEY, o oid, c regclass, p regproc, pd regprocedure, op regoper, opr regoperator, t regtype, r regrole, n regnamespace, cf regconfig, di regdictionary, co regcollation);
INSERT INTO objects VALUES
    (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    (2, 4294967295, '"Other Schema"."Its Table"', '"Other Schema".overloaded', '"Other Schema"."Only One"(text, "Other Schema"."Its Table")', '"Other Schema".===', '"Other Schema".===(integer,integer)', '"Other Schema"."Its Type"[]', 'postgres', '"Other Schema"', '"Other Schema"."Its Words"', '"Other Schema"."Its Dict"', '"C"'),
    (3, 1, 'pg_class', 'now', 'sum(integer)', '||/', '+(integer,integer)', 'timestamp with time zone', 'pg_monitor', 'pg_catalog', 'english', 'simple', 'default'),
    (4, 1, 'objects', '"Other Schema"."Only One"', 'pg_typeof("any")', NULL, '-(NONE,integer)', 'objects', NULL, 'public', NULL, NULL, '"POSIX"'),
    (5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE system_types (id integer PRIMARY KEY, l pg_lsn, x xid, x8 xid8, ci cid, ti tid, s pg_snapshot, ts txid_snapshot, iv int2vector, ov oidvector, a aclitem, aa aclitem[], rc refcursor);
INSERT INTO system_types VALUES
    (1, '0/0', '0', '0', '0', '(0,0)', '1:1:', '1:1:', '', '', 'postgres=r/postgres', '{}', ''),
    (2, 'FFFFFFFF/FFFFFFFF', '4294967295', '18446744073709551615', '4294967295', '(4294967295,65535)', '10:20:10,14,15', '10:20:10,14,15', '1 -2 32767', '1 2 4294967295', '=arwdDxt/postgres', '{=r/postgres,postgres=a*r*/postgres}', 'a "cursor"'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TYPE colour AS ENUM ('red', '', 'NULL', 'dark, "red"', 'back\slash', '{x}', ' ');
CREATE TYPE inner_row AS (a integer, b text, c colour);
CREATE TYPE outer_row AS (one inner_row, many inner_row[], t text);
CREATE DOMAIN checked AS integer CHECK (VALUE > 0);
CREATE DOMAIN checked_array AS text[] CHECK (cardinality(VALUE) < 10);
CREATE DOMAIN checked_row AS inner_row CHECK ((VALUE).a > 0);
CREATE TYPE float_range AS RANGE (subtype = float8);
CREATE TABLE compounds (id integer PRIMARY KEY, e colour, ea colour[], i inner_row, o outer_row, oa outer_row[], c checked, ca checked_array, cc checked[], cr checked_row, cra checked_row[], fr float_range, fra float_range[]);
INSERT INTO compounds VALUES
    (1, '', ARRAY['', 'NULL', NULL, 'dark, "red"', 'back\slash', '{x}', ' ']::colour[], ROW(1, '', ''), ROW(ROW(1, 'a "b" \ (c), d', 'red'), ARRAY[ROW(NULL, NULL, NULL), ROW(2, '', 'NULL'), NULL]::inner_row[], E'x\ny\t\\.'),
        ARRAY[ROW(ROW(1, '"', 'back\slash'), ARRAY[ROW(1, E'\\"{}', '{x}')]::inner_row[], NULL), NULL]::outer_row[], 1, ARRAY['', NULL, 'NULL', '{', '"', E'\\', E'\n', ' ', ','], ARRAY[1, 2], ROW(1, 'x', 'red'), ARRAY[ROW(1, NULL, NULL)]::checked_row[], '[-0,NaN]', ARRAY['[0.1,0.2)', 'empty', '(,)']::float_range[]),
    (2, NULL, '{}', NULL, NULL, '{}', NULL, '{}', '{}', NULL, '{}', 'empty', '{}'),
    (3, 'NULL', NULL, ROW(NULL, NULL, NULL), ROW(NULL, NULL, NULL), ARRAY[NULL]::outer_row[], NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE arrays (id integer PRIMARY KEY, i integer[], i3 integer[3][3], t text[], b bytea[], f float8[], n numeric[], ts timestamptz[], j jsonb[], bo boolean[], ba box[], p point[], x xml[], c "char"[], nm name[], iv interval[], r int4range[], u uuid[]);
INSERT INTO arrays VALUES
    (1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'),
    (2, '[-2:0]={1,NULL,3}', '{{1,2},{3,4}}', ARRAY['', NULL, 'NULL', 'null', '"', '\', '{', '}', ',', ' ', E'\n', E'\t', E'\r', 'é', '\N', '\.'], ARRAY['', '\x00', NULL, '\x5c7b7d22']::bytea[], '{NaN,Infinity,-Infinity,-0,1e-320,NULL}', '{NaN,1.10,1e100}', '{infinity,"4713-01-01 00:00+00 BC"}',
        ARRAY['{"a": "\""}', 'null', NULL, '[]']::jsonb[], '{t,f,NULL}', '{(1,1),(0,0);(2,2),(1,1)}', '{"(1,2)",NULL}', ARRAY['<a b="c"/>', '', NULL]::xml[], ARRAY['a', '"', '\', ',', '', NULL]::"char"[], '{a,"b c"}', '{"1 day","-00:00:01"}', '{"[1,2)",empty,NULL}', '{00000000-0000-0000-0000-000000000000}'),
    (3, '[0:1][-1:0][5:5]={{{1},{2}},{{3},{NULL}}}', '{{{{{{1}}}}}}', '[3:4]={a,b}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- Shapes of tables.
CREATE TABLE no_columns ();
INSERT INTO no_columns SELECT FROM generate_series(1, 1000);
CREATE TABLE no_rows (id integer, v text);
CREATE TABLE one_null (v text);
INSERT INTO one_null VALUES (NULL), (''), ('\N'), ('\.'), (E'\\.\n\\.');
CREATE TABLE same_rows (v text);
INSERT INTO same_rows SELECT 'same' FROM generate_series(1, 10000);
SELECT format('CREATE TABLE wide (%s)', string_agg(format('c%s %s', g, (ARRAY['integer', 'text', 'boolean', 'smallint'])[g % 4 + 1]), ', ' ORDER BY g)) FROM generate_series(1, 1000) AS g
\gexec
SELECT format('INSERT INTO wide SELECT %s FROM generate_series(1, 20) AS n', string_agg((ARRAY['n', '''t'' || n', 'n % 2 = 0', 'NULL'])[g % 4 + 1], ', ' ORDER BY g)) FROM generate_series(1, 1000) AS g
\gexec
-- Rows of several megabytes: one that compresses and one that does not, one that grows threefold when written as COPY text.
CREATE TABLE big_rows (id integer PRIMARY KEY, t text, b bytea);
ALTER TABLE big_rows ALTER b SET STORAGE external;
INSERT INTO big_rows VALUES (1, repeat('0123456789', 800000), NULL), (2, NULL, decode((SELECT string_agg(md5(g::text), '') FROM generate_series(1, 250000) AS g), 'hex')),
    (3, repeat(E'\\\n\t', 1000000), NULL), (4, repeat('日本🚢', 300000), '');
CREATE VIEW all_of_it AS SELECT n.*, t.i AS iv, a.f FROM numbers AS n JOIN times AS t USING (id) JOIN arrays AS a USING (id);

-- Makes one row of so many megabytes: SELECT add_big_row(20).
CREATE FUNCTION add_big_row(megabytes integer) RETURNS integer LANGUAGE sql
    AS 'INSERT INTO big_rows SELECT max(id) + 1, repeat(''x123456 89abcdef'', $1 * 65536) FROM big_rows RETURNING id';
