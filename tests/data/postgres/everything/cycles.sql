-- Things that need one another in a circle, and needs that the catalogs do not tell.

-- A column's default calls a function of the table's own row type.
CREATE TABLE app.cycle_default (id integer);
CREATE FUNCTION app.of_cycle_default(app.cycle_default) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1.id, 5)';
-- Some servers (15.20) do not add a column with such a default; all of them set the default of a column that is there.
DO $$
BEGIN
    ALTER TABLE app.cycle_default ADD COLUMN made integer DEFAULT app.of_cycle_default(NULL);
EXCEPTION WHEN feature_not_supported THEN
    ALTER TABLE app.cycle_default ADD COLUMN made integer;
    ALTER TABLE app.cycle_default ALTER COLUMN made SET DEFAULT app.of_cycle_default(NULL);
END $$;
INSERT INTO app.cycle_default VALUES (1);
-- A domain's check calls a function with an argument of the domain (in an array, or it would check without end).
CREATE DOMAIN app.cycle_domain AS integer;
CREATE FUNCTION app.of_cycle_domain(integer, app.cycle_domain[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
ALTER DOMAIN app.cycle_domain ADD CONSTRAINT by_itself CHECK (app.of_cycle_domain(VALUE, NULL));
CREATE TABLE app.with_cycle_domain (d app.cycle_domain);
INSERT INTO app.with_cycle_domain VALUES (1);
-- A table's check, an index and a policy by a function on the table's rows; two tables whose checks need one another.
CREATE TABLE app.cycle_one (id integer PRIMARY KEY, v text);
CREATE TABLE app.cycle_two (id integer PRIMARY KEY, one app.cycle_one);
CREATE FUNCTION app.of_two(app.cycle_two) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.id > 0';
ALTER TABLE app.cycle_one ADD CONSTRAINT by_two CHECK (app.of_two(NULL) IS NULL OR id > 0);
CREATE FUNCTION app.of_one(app.cycle_one) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.id > 0';
ALTER TABLE app.cycle_two ADD CONSTRAINT by_one CHECK (app.of_one(one));
INSERT INTO app.cycle_two VALUES (1, ROW(1, 'x'));
INSERT INTO app.cycle_one VALUES (1, 'y');
CREATE POLICY by_row ON app.cycle_two USING (app.of_two(cycle_two));
-- A rule, a trigger and a view of a table that need the table's view; a function of a materialized view's rows.
CREATE VIEW app.cycle_view AS SELECT id, v FROM app.cycle_one;
CREATE RULE through_view AS ON DELETE TO app.cycle_one WHERE EXISTS (SELECT FROM app.cycle_view WHERE id < 0) DO INSTEAD NOTHING;
CREATE MATERIALIZED VIEW app.cycle_mat AS SELECT id, v FROM app.cycle_view;
CREATE FUNCTION app.of_mat(app.cycle_mat) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.v';
CREATE INDEX cycle_mat_index ON app.cycle_mat (app.of_mat(cycle_mat.*));
CREATE VIEW app.over_mat_function AS SELECT app.of_mat(m) AS v FROM app.cycle_mat AS m;
-- A type whose function's default is of the type; an aggregate used by a view used by a function used by a default.
CREATE FUNCTION app.moody(m app.mood DEFAULT 'ok') RETURNS app.mood LANGUAGE sql IMMUTABLE AS 'SELECT m';
CREATE VIEW app.total_view AS SELECT app.total_full(id) AS t FROM app.tree;
CREATE FUNCTION app.from_total_view(r app.total_view DEFAULT NULL) RETURNS text LANGUAGE sql AS 'SELECT t FROM app.total_view';
CREATE TABLE app.by_total (t text DEFAULT app.from_total_view());
INSERT INTO app.by_total DEFAULT VALUES;
-- Constants that are names of other things.
CREATE VIEW app.names_in_constants AS SELECT 'app.accounts'::regclass AS c, 'app.add(integer,integer,integer)'::regprocedure AS p, 'app.mood'::regtype AS t,
    'app.mine'::regconfig AS w, 'app'::regnamespace AS n, 'app.full_seq'::regclass AS s, 'app."Deutsch ä"'::regcollation AS o, nextval('app.plain_seq'::regclass) AS v;
CREATE TABLE app.default_names (c regclass DEFAULT 'app.names_in_constants'::regclass, p regproc DEFAULT 'app.dollars'::regproc, d regdictionary DEFAULT 'app.plain');
INSERT INTO app.default_names DEFAULT VALUES;
-- Materialized views of views of materialized views, against the order of names.
CREATE MATERIALIZED VIEW app.w3 AS SELECT 1 AS n;
CREATE VIEW app.w2 AS SELECT n FROM app.w3;
CREATE FUNCTION app.w2_rows() RETURNS SETOF app.w2 LANGUAGE sql AS 'SELECT * FROM app.w2';
CREATE MATERIALIZED VIEW app.w1 AS SELECT w2.n FROM app.w2;
CREATE MATERIALIZED VIEW app.w0 AS SELECT n FROM app.w1 UNION ALL SELECT n FROM app.w3;
