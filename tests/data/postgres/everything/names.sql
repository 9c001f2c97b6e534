-- Names: quotes, spaces, dots, slashes, percent signs, backslashes, Unicode, upper case, newlines, 63 bytes, reserved words.

CREATE SCHEMA a;
CREATE SCHEMA "a.b";
CREATE SCHEMA "Ünï 日本 🚢";
CREATE SCHEMA "..";
CREATE SCHEMA "new
line";
CREATE TABLE "a.b"."c" (id integer PRIMARY KEY, what text DEFAULT '"a.b"."c"');
CREATE TABLE a."b.c" (id integer PRIMARY KEY, what text DEFAULT 'a."b.c"');
CREATE TABLE a."../../x" (id integer PRIMARY KEY, what text DEFAULT 'a."../../x"');
CREATE TABLE ".."."." (id integer PRIMARY KEY, what text);
CREATE TABLE ".."."/etc/passwd" (id integer PRIMARY KEY, what text);
CREATE TABLE a."%2E%2e%2F" (id integer PRIMARY KEY, what text);
CREATE TABLE a."tab	and \ and $1 $$ ; -- /* */ ' "" % %s {} * ? [x] <y> | & # ! ~ ` ^" (id integer PRIMARY KEY, what text);
CREATE TABLE a." space at both ends " (id integer PRIMARY KEY, what text);
CREATE TABLE a."two
lines" (id integer PRIMARY KEY, "col
umn" text CONSTRAINT "con
straint" CHECK ("col
umn" <> '
'));
CREATE INDEX "in
dex" ON a."two
lines" ("col
umn");
COMMENT ON TABLE a."two
lines" IS 'two
lines
\connect nowhere
\.
;';
CREATE TABLE a."UPPER" (id integer PRIMARY KEY, "ID" text, "Id" text);
CREATE TABLE a.upper (id integer PRIMARY KEY, "table" text, "user" text, "order" text, "1st" text, "a""b" text, "a.b" text, " " text, "é" text, "$" text, a$b text, _x text);
CREATE TABLE "Ünï 日本 🚢"."表 🚢 ñ" ("列" integer PRIMARY KEY, "ñandú" text, U&"n\0303andu\0301" text);
-- 63 bytes, of one and of three bytes a letter.
CREATE TABLE a.abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz_123456789 (
    abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz_123456789 integer CONSTRAINT abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz_12345678k PRIMARY KEY,
    abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz_123456788 serial
);
CREATE TABLE "Ünï 日本 🚢"."日本語日本語日本語日本語日本語日本語日本語" ("日本語日本語日本語日本語日本語日本語日本語" integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
CREATE TABLE "select"."table" ("select" integer CONSTRAINT "primary" PRIMARY KEY, "from" text DEFAULT 'where', "end" integer REFERENCES "select"."table" ON DELETE SET NULL, CONSTRAINT "check" CHECK ("select" > 0));
CREATE TABLE "select".values (values integer, "analyse" boolean);
CREATE INDEX "index" ON "select"."table" ("from", "end") WHERE "from" <> '';
CREATE VIEW "select"."view" AS SELECT "select" AS "from", t."end" AS "case", "table"."from" AS "then" FROM "select"."table" AS t JOIN "select"."table" USING ("select");
CREATE FUNCTION "select"."function"("in" integer, OUT "out" text, VARIADIC "array" text[] DEFAULT '{}') LANGUAGE sql AS 'SELECT "in"::text';
CREATE TYPE "select"."type" AS ENUM ('select', 'NULL', '{', '"', ',');
CREATE TYPE "select"."row" AS ("select" integer, "row" "select"."type"[], "a.b" text);
CREATE DOMAIN "select"."domain" AS "select"."type" CONSTRAINT "value" CHECK (VALUE <> 'NULL');
CREATE SEQUENCE "select"."sequence";
CREATE TRIGGER "trigger" BEFORE UPDATE OF "from" ON "select"."table" FOR EACH ROW EXECUTE FUNCTION app.quiet();
CREATE RULE "rule" AS ON INSERT TO "select".values DO ALSO NOTIFY "select";
CREATE POLICY "policy" ON "select"."table" USING ("select" > 0);
CREATE TABLE "select".typed (a "select"."type" DEFAULT 'NULL', b "select"."type"[] DEFAULT ARRAY['{', '"', NULL, 'NULL']::"select"."type"[], c "select"."row", d "select"."domain", e integer DEFAULT nextval('"select"."sequence"'));
-- Named like types, functions and keywords of the system.
CREATE TABLE public.pg_class (oid integer, relname text);
CREATE TABLE public."char" ("char" "char", "integer" integer, "timestamp with time zone" timestamptz, current_user_ text, "current_user" text);
CREATE TYPE public."integer" AS ENUM ('not', 'a', 'number');
CREATE TYPE public."time" AS (h integer);
CREATE DOMAIN public.text AS pg_catalog.text CHECK (VALUE <> 'never');
CREATE TABLE public.shadows (a public."integer", b integer, c public.text, d pg_catalog.text, e public."time", f time, g public."integer"[], h public.text[] DEFAULT ARRAY['x'::public.text]);
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT ''2000-01-01''::timestamptz';
CREATE FUNCTION public.lower(public.text) RETURNS pg_catalog.text LANGUAGE sql IMMUTABLE AS $$SELECT 'mine'$$;
CREATE TABLE public.shadow_calls (a timestamptz DEFAULT public.now(), b timestamptz DEFAULT pg_catalog.now(), c pg_catalog.text DEFAULT public.lower('x'::public.text));
CREATE OPERATOR public.+ (FUNCTION = app.add, LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text);
CREATE VIEW public.shadow_operators AS SELECT 1 + 1 AS a, 'a'::pg_catalog.text OPERATOR(public.+) 'b' AS b, pg_catalog.now() AS c, public.now() AS d, NULL::public."time" AS e, NULL::time AS f;

INSERT INTO "a.b"."c" SELECT g FROM generate_series(1, 3) AS g;
INSERT INTO a."b.c" SELECT g FROM generate_series(1, 4) AS g;
INSERT INTO a."../../x" SELECT g FROM generate_series(1, 5) AS g;
INSERT INTO ".."."." VALUES (1, 'dot');
INSERT INTO ".."."/etc/passwd" VALUES (1, 'passwd');
INSERT INTO a."%2E%2e%2F" VALUES (1, 'percent');
INSERT INTO a."tab	and \ and $1 $$ ; -- /* */ ' "" % %s {} * ? [x] <y> | & # ! ~ ` ^" VALUES (1, 'all');
INSERT INTO a." space at both ends " VALUES (1, ' ');
INSERT INTO a."two
lines" VALUES (1, 'x'), (2, E'y\nz');
INSERT INTO a."UPPER" VALUES (1, 'ID', 'Id');
INSERT INTO a.upper VALUES (1, 't', 'u', 'o', '1', 'q', 'd', 's', 'é', '$', '$', '_');
INSERT INTO "Ünï 日本 🚢"."表 🚢 ñ" VALUES (1, 'composed', 'not');
INSERT INTO a.abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz_123456789 VALUES (1), (2);
INSERT INTO "Ünï 日本 🚢"."日本語日本語日本語日本語日本語日本語日本語" (v) VALUES ('日'), ('本');
INSERT INTO "select"."table" VALUES (1, 'a', 2), (2, 'b', 1);
INSERT INTO "select".values VALUES (1, true);
INSERT INTO "select".typed (c) VALUES (ROW(1, '{NULL,"NULL","{"}', 'x')::"select"."row");
INSERT INTO public.pg_class VALUES (1, 'x');
INSERT INTO public."char" VALUES ('c', 1, '2026-01-01 00:00+00', 'a', 'b');
INSERT INTO public.shadows VALUES ('not', 1, 'x', 'never', ROW(1), '12:00', '{a,number}');
INSERT INTO public.shadow_calls VALUES (DEFAULT, '2026-01-01 00:00+00', DEFAULT);
