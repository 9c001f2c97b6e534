-- Indexes of every method and option, statistics objects, CLUSTER, replica identity.

CREATE TABLE app.indexed (
    id integer PRIMARY KEY, a integer NOT NULL, b text, c text COLLATE "C", d jsonb, e int4range, f point, g text[], h inet,
    i tsvector, j timestamptz, k integer[], l app.point3, m box, n numeric, "Odd, column" text, o text
);
INSERT INTO app.indexed
    SELECT g, g, 'b' || g, 'c' || g, jsonb_build_object('k', g), int4range(g, g + 5), point(g, g), ARRAY['x', g::text], ('10.0.0.' || g)::inet,
           to_tsvector('simple', 'word' || g), timestamptz '2026-01-01 00:00+00' + g * interval '1 hour', ARRAY[g], ROW(g, 0, 0)::app.point3, box(point(g, g), point(0, 0)), g, 'o' || g, 'p'
      FROM generate_series(1, 200) AS g;
CREATE INDEX indexed_b ON app.indexed (b);
CREATE UNIQUE INDEX "unique on Expression" ON app.indexed (lower(b) DESC NULLS LAST, ((a + 1)), c COLLATE app."Deutsch ä" text_pattern_ops) WHERE a > 0 AND b <> 'it''s';
CREATE INDEX indexed_include ON app.indexed (a DESC, n ASC NULLS FIRST) INCLUDE (b, c) WITH (fillfactor = 66, deduplicate_items = off);
CREATE INDEX indexed_call ON app.indexed (app.add(a, 5), (d ->> 'k'), "Odd, column");
CREATE INDEX indexed_hash ON app.indexed USING hash (b) WITH (fillfactor = 60) TABLESPACE lifeboat_space;
CREATE INDEX indexed_gin ON app.indexed USING gin (d jsonb_path_ops, g, i) WITH (fastupdate = off, gin_pending_list_limit = 128);
CREATE INDEX indexed_trgm ON app.indexed USING gin (b gin_trgm_ops, a other.int4_ops);
CREATE INDEX indexed_gist ON app.indexed USING gist (e, f, a gist_int4_ops, h inet_ops) WITH (buffering = on, fillfactor = 75);
CREATE INDEX indexed_trgm_options ON app.indexed USING gist (b gist_trgm_ops (siglen = 32), k gist__intbig_ops (siglen = 100), i tsvector_ops (siglen = 200));
CREATE INDEX indexed_spgist ON app.indexed USING spgist (f quad_point_ops) WITH (fillfactor = 77);
CREATE INDEX indexed_kd ON app.indexed USING spgist (f kd_point_ops) WHERE f IS NOT NULL;
CREATE INDEX indexed_brin ON app.indexed USING brin (j, a int4_minmax_ops, e) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX indexed_own_class ON app.indexed (l DESC);
CREATE INDEX indexed_own_hash ON app.indexed USING hash (l app.point3_hash_ops);
CREATE INDEX indexed_gist2 ON app.indexed USING gist2 (m);
CREATE INDEX indexed_my_point ON app.indexed USING gist (f app.my_point_ops);
CREATE INDEX depends ON app.indexed (o);
ALTER INDEX app.depends DEPENDS ON EXTENSION pg_trgm;
ALTER INDEX app.indexed_call ALTER COLUMN 1 SET STATISTICS 300;
ALTER INDEX app.indexed_call ALTER COLUMN 2 SET STATISTICS 50;
\if :v14
CREATE INDEX indexed_brin_multi ON app.indexed USING brin (a int4_minmax_multi_ops (values_per_range = 64), j timestamptz_bloom_ops (n_distinct_per_range = 200, false_positive_rate = 0.05));
\endif
\if :v15
CREATE UNIQUE INDEX indexed_one_null ON app.indexed (a, b) NULLS NOT DISTINCT;
\endif
COMMENT ON INDEX app.indexed_b IS 'an index';
COMMENT ON INDEX app."unique on Expression" IS E'with a ''quote''\nand a line';
ALTER TABLE app.indexed CLUSTER ON indexed_include;
ALTER TABLE app.tree CLUSTER ON tree_pkey;

-- Replica identity, each kind.
CREATE TABLE app.replica_index (a integer NOT NULL, b integer NOT NULL);
CREATE UNIQUE INDEX "replica Index" ON app.replica_index (b);
ALTER TABLE app.replica_index REPLICA IDENTITY USING INDEX "replica Index";
CREATE TABLE app.replica_key (a integer PRIMARY KEY, b integer CONSTRAINT b_key UNIQUE NOT NULL);
ALTER TABLE app.replica_key REPLICA IDENTITY USING INDEX b_key;
CREATE TABLE app.replica_full (a integer);
ALTER TABLE app.replica_full REPLICA IDENTITY FULL;
CREATE TABLE app.replica_nothing (a integer);
ALTER TABLE app.replica_nothing REPLICA IDENTITY NOTHING;
INSERT INTO app.replica_index VALUES (1, 1);
INSERT INTO app.replica_key VALUES (1, 1);
INSERT INTO app.replica_full VALUES (1), (1);
INSERT INTO app.replica_nothing VALUES (1), (NULL);

-- On partitioned tables: made for all, attached one by one, on ONLY and so not valid, unique, one leaf's own.
CREATE INDEX events_at ON app.events (at DESC);
CREATE INDEX events_old_kind ON app.events_old (kind);
CREATE INDEX events_kind ON app.events (kind) WITH (fillfactor = 88);
CREATE INDEX events_half ON ONLY app.events (id);
CREATE INDEX "events_2025 its own" ON app.events_2025 (id) WITH (fillfactor = 55);
ALTER INDEX app.events_half ATTACH PARTITION app."events_2025 its own";
CREATE UNIQUE INDEX by_hash_id ON app.by_hash (id);
CREATE INDEX leaf_only ON app.events_2026_a USING brin (at);
CREATE INDEX events_expression ON app.events ((payload ->> 'n'), lower(kind)) TABLESPACE lifeboat_space;
COMMENT ON INDEX app.events_at IS 'newest first';
COMMENT ON INDEX app."events_2025 its own" IS 'attached by hand';
ALTER INDEX app.events_expression ALTER COLUMN 1 SET STATISTICS 77;

-- Statistics objects.
CREATE STATISTICS app.st_all ON a, b FROM app.indexed;
CREATE STATISTICS app.st_ndistinct (ndistinct) ON a, b, c FROM app.indexed;
CREATE STATISTICS app."St Dep" (dependencies) ON a, "Odd, column" FROM app.indexed;
CREATE STATISTICS other.st_two (mcv, ndistinct) ON b, c FROM app.indexed;
ALTER STATISTICS app.st_all SET STATISTICS 200;
ALTER STATISTICS app.st_ndistinct SET STATISTICS 0;
\if :v14
CREATE STATISTICS app.st_expression ON (a % 10), (lower(b)), c FROM app.indexed;
CREATE STATISTICS app.st_one ON (app.add(a, 1)) FROM app.indexed;
\endif
COMMENT ON STATISTICS app.st_all IS 'a and b go together';
ALTER STATISTICS app.st_ndistinct OWNER TO lifeboat_owner;
CREATE STATISTICS app.st_events ON id, kind FROM app.events;
CREATE INDEX words ON app.indexed USING gin (to_tsvector('app.mine'::regconfig, b));
CREATE INDEX words_2 ON app.indexed (("Odd, column" || 'it''s \ "x"'), (a > 5), ((d -> 'k')::text COLLATE "C") DESC) WHERE (b, c) <> ('x', E'y\n');
ALTER INDEX app.leaf_only SET (pages_per_range = 4);
-- Not valid, left behind by one that failed: pg_dump leaves it out.
\set ON_ERROR_STOP off
CREATE UNIQUE INDEX CONCURRENTLY left_behind ON app.replica_full (a);
\set ON_ERROR_STOP on
