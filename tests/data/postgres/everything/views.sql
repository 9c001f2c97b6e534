-- Views, materialized views, and the functions that stand between them.

CREATE VIEW app.plain_view AS SELECT id, name, mood FROM app.accounts WHERE mood <> 'sad' AND name LIKE '%\_%' ESCAPE '\' OR name = E'it''s\n';
CREATE VIEW app.over_view ("The Id", "Some ""name""") AS SELECT id, name FROM app.plain_view;
CREATE VIEW app.barrier WITH (security_barrier = true) AS SELECT id, name FROM app.accounts WHERE id > 5;
CREATE VIEW app.local_check WITH (check_option = local) AS SELECT id, v FROM app.in_space WHERE id > 0;
CREATE VIEW app.cascaded_check WITH (security_barrier) AS SELECT * FROM app.local_check WHERE v <> '' WITH CASCADED CHECK OPTION;
\if :v15
CREATE VIEW app.invoker WITH (security_invoker = true, security_barrier = false) AS SELECT count(*) AS n FROM app.accounts;
\endif
ALTER VIEW app.local_check ALTER COLUMN v SET DEFAULT 'by the view';
CREATE RECURSIVE VIEW app.down_tree (id, depth, path) AS
    SELECT id, 0, ARRAY[id] FROM app.tree WHERE parent IS NULL UNION ALL SELECT t.id, d.depth + 1, d.path || t.id FROM app.tree AS t JOIN down_tree AS d ON t.parent = d.id;
CREATE VIEW app.of_much AS
    WITH numbers (n) AS (VALUES (1), (2)), kept AS MATERIALIZED (SELECT DISTINCT ON (a.id) a.* FROM app.accounts AS a ORDER BY a.id, a.name COLLATE "C" DESC NULLS LAST)
    SELECT n, k.id, (k.home).at, ((k.home).history[1]).x, app.total(k.id) FILTER (WHERE k.id > 1) OVER w AS running, k.moods[1:2] AS some, t."the name", x.a AS from_lateral,
           CASE k.mood WHEN 'ok'::app.mood THEN 1 ELSE NULL END AS c, k.made AT TIME ZONE 'Asia/Tokyo' AS tokyo, ROW(k.id, k.name)::text AS r, k.tags OPERATOR(other.->) 'a' AS tag,
           EXISTS (SELECT 1 FROM app.tree WHERE tree.id = k.id) AS e, k.id = ANY (ARRAY[1, 2]) AS any_of, interval '1 day 02:03:04' AS i, B'101'::bit(3) AS bits, 'x'::app.textual AS txt
      FROM numbers CROSS JOIN LATERAL (SELECT n * 2 AS a) AS x LEFT JOIN kept AS k ON k.id = n, app.table_of(3) WITH ORDINALITY AS t (id, "the name", place, ord)
    WINDOW w AS (PARTITION BY k.mood ORDER BY k.id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES);
CREATE VIEW app.grouped AS SELECT region, customer, count(*) AS n, percentile_cont(0.5) WITHIN GROUP (ORDER BY total::float8) AS median, GROUPING(region) AS g
    FROM app.orders TABLESAMPLE system (100) REPEATABLE (1) GROUP BY GROUPING SETS ((region), CUBE (customer), ()) HAVING count(*) > 0;
CREATE VIEW app.set_operations AS (SELECT 1 AS a UNION SELECT 2 EXCEPT ALL SELECT 3) INTERSECT SELECT 4 ORDER BY 1 LIMIT 5 OFFSET 1;
CREATE VIEW app.whole_row AS SELECT a, a.id FROM app.accounts AS a;
CREATE VIEW app.no_columns_view AS SELECT;
CREATE VIEW app.own_operators AS SELECT id, l OPERATOR(app.=) ROW(1, 2, 3)::app.point3 AS same FROM app.indexed WHERE l OPERATOR(app.<) 5::float8 ORDER BY l USING OPERATOR(app.<);
CREATE VIEW app.join_using AS SELECT id, k.a, i."aliased A", parent FROM app.keys AS k JOIN app.indexed AS i (id, "aliased A") USING (id) FULL JOIN app.tree USING (id);
\if :v14
CREATE VIEW app.join_alias AS SELECT j.id AS joined FROM app.keys JOIN app.tree USING (id) AS j;
-- (With labels of its own in CYCLE the server prints what it does not read.)
CREATE VIEW app.search_cycle AS WITH RECURSIVE r (id, parent) AS (SELECT id, parent FROM app.tree WHERE id = 1 UNION ALL SELECT t.id, t.parent FROM r JOIN app.tree t ON t.id = r.parent)
    SEARCH DEPTH FIRST BY id SET seq CYCLE id SET looped USING way SELECT id, looped FROM r ORDER BY seq;
\endif
\if :v16
CREATE VIEW app.json_16 AS SELECT JSON_OBJECT('a': id, 'b': name ABSENT ON NULL WITH UNIQUE KEYS RETURNING jsonb) AS o, JSON_ARRAYAGG(id ORDER BY id) FILTER (WHERE id > 1) AS l, name IS JSON OBJECT AS is_json FROM app.accounts GROUP BY id, name;
\endif
\if :v17
CREATE VIEW app.json_17 AS SELECT t.* , JSON_VALUE(d, '$.k' RETURNING integer DEFAULT 5 ON EMPTY ERROR ON ERROR) AS v FROM app.indexed, JSON_TABLE(d, '$' COLUMNS (n FOR ORDINALITY, k integer PATH '$.k', NESTED PATH '$.x[*]' COLUMNS (y text PATH '$'))) AS t;
\endif
CREATE VIEW app.xml_table AS SELECT x.* FROM XMLTABLE(XMLNAMESPACES('http://x' AS ns), '/r/i' PASSING ('<r/>'::xml) COLUMNS a integer PATH '@a' DEFAULT 3, b text PATH 'b' NOT NULL, o FOR ORDINALITY) AS x;
-- Grouped by a primary key, and so in need of the key, which is made late.
CREATE VIEW app.by_key AS SELECT a.id, a.name, a.mood, count(t.id) AS n FROM app.accounts AS a LEFT JOIN app.tree AS t ON t.id = a.id GROUP BY a.id;
CREATE VIEW app.over_by_key WITH (security_barrier) AS SELECT b.name, b.n FROM app.by_key AS b WHERE b.n > 0;
COMMENT ON VIEW app.plain_view IS 'not the sad';
COMMENT ON COLUMN app.over_view."Some ""name""" IS 'a name';
ALTER VIEW app.plain_view OWNER TO lifeboat_owner;

-- A circle: a function of a view's row type, and a view made of that function; a view that reads itself by a function.
CREATE VIEW app.circle_a AS SELECT 1 AS n, 'x'::text AS t;
CREATE FUNCTION app.circle_function(app.circle_a) RETURNS SETOF app.circle_a LANGUAGE sql AS 'SELECT $1.*';
CREATE VIEW app.circle_b AS SELECT (app.circle_function(a.*)).n FROM app.circle_a AS a;
CREATE FUNCTION app.rows_of_a() RETURNS SETOF app.circle_a LANGUAGE sql AS 'SELECT * FROM app.circle_a';
CREATE OR REPLACE VIEW app.circle_a AS SELECT n, t FROM app.rows_of_a() UNION ALL SELECT 1, 'y';
-- A circle of two views, through CREATE OR REPLACE.
CREATE VIEW app.circle_c AS SELECT 1 AS n;
CREATE VIEW app.circle_d AS SELECT n FROM app.circle_c;
CREATE OR REPLACE VIEW app.circle_c AS SELECT n FROM app.circle_d;
-- A default that reads a table through a view through a function; a check on the row type of a table.
CREATE FUNCTION app.id_of(app.accounts) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1.id';
ALTER TABLE app.accounts ADD CONSTRAINT by_row CHECK (app.id_of(accounts.*) > 0);
CREATE INDEX accounts_by_row ON app.accounts (app.id_of(accounts.*));
CREATE FUNCTION app.next_account() RETURNS integer LANGUAGE sql AS 'SELECT max(id) + 1 FROM app.plain_view';
CREATE TABLE app.after_views (id integer DEFAULT app.next_account(), v app.circle_b, w app.over_by_key);
INSERT INTO app.after_views (v) VALUES (ROW(1));
\if :v14
CREATE FUNCTION app.atomic_on_view(integer) RETURNS SETOF app.by_key LANGUAGE sql BEGIN ATOMIC SELECT * FROM app.by_key WHERE by_key.id = $1; END;
CREATE FUNCTION app.atomic_on_key() RETURNS TABLE (id integer, name text) LANGUAGE sql BEGIN ATOMIC SELECT a.id, a.name FROM app.accounts a GROUP BY a.id; END;
CREATE PROCEDURE app.atomic_writes(text) LANGUAGE sql BEGIN ATOMIC INSERT INTO app.in_space VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET v = excluded.v; DELETE FROM app.tree WHERE false; END;
CREATE VIEW app.over_atomic AS SELECT id FROM app.atomic_on_key();
\endif

-- Materialized views, one on another against the order of names, with and without rows, with indexes.
CREATE MATERIALIZED VIEW app.m_zebra WITH (fillfactor = 71, autovacuum_enabled = false) AS SELECT id, name FROM app.accounts;
CREATE MATERIALIZED VIEW app.m_ape TABLESPACE lifeboat_space AS SELECT z.id, count(*) AS n FROM app.m_zebra AS z, app.over_by_key GROUP BY z.id WITH DATA;
CREATE MATERIALIZED VIEW app.m_empty AS SELECT 1 / id AS never FROM app.m_ape WITH NO DATA;
CREATE MATERIALIZED VIEW app."M ""odd"" one" USING heap2 AS SELECT * FROM app.m_ape;
CREATE MATERIALIZED VIEW app.m_by_key AS SELECT id, name, count(*) AS n FROM app.accounts GROUP BY id;
CREATE VIEW app.over_matview AS SELECT * FROM app.m_zebra;
CREATE UNIQUE INDEX m_zebra_id ON app.m_zebra (id);
CREATE INDEX m_zebra_name ON app.m_zebra (lower(name)) WHERE id > 3;
CREATE INDEX m_empty_index ON app.m_empty (never);
ALTER MATERIALIZED VIEW app.m_zebra CLUSTER ON m_zebra_id;
ALTER MATERIALIZED VIEW app.m_zebra ALTER name SET STATISTICS 99, ALTER name SET STORAGE external, ALTER id SET (n_distinct = 5);
ALTER MATERIALIZED VIEW app.m_ape DEPENDS ON EXTENSION pg_trgm;
CREATE STATISTICS app.m_zebra_st ON id, name FROM app.m_zebra;
COMMENT ON MATERIALIZED VIEW app.m_zebra IS 'kept';
COMMENT ON COLUMN app.m_zebra.name IS 'kept too';
ALTER MATERIALIZED VIEW app.m_zebra OWNER TO lifeboat_owner;
