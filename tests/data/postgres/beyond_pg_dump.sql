-- What pg_dump writes down and cannot bring back, or not as it was.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
SELECT current_setting('server_version_num')::int >= 170000 AS v17
\gset

-- Joined to its parents later, with its columns in another order than theirs.
CREATE TABLE parent_a (a integer, b text, c integer);
CREATE TABLE parent_b (c integer, d integer);
CREATE TABLE adopted (own integer, d integer, c integer DEFAULT 3, more text, b text, a integer);
ALTER TABLE adopted INHERIT parent_a, INHERIT parent_b;
INSERT INTO adopted VALUES (1, 2, 3, 'x', 'y', 4);
\if :v17
-- An exclusion constraint of a partitioned table: pg_dump makes its parts one by one, and they cannot be attached.
CREATE EXTENSION btree_gist;
CREATE TABLE part_exclusion (k integer, r int4range, CONSTRAINT apart EXCLUDE USING gist (k WITH =, r WITH &&) DEFERRABLE) PARTITION BY RANGE (k);
CREATE TABLE part_exclusion_1 PARTITION OF part_exclusion FOR VALUES FROM (0) TO (10);
CREATE TABLE part_exclusion_2 (r int4range, k integer, CONSTRAINT "Own name" EXCLUDE USING gist (k WITH =, r WITH &&) DEFERRABLE);
ALTER TABLE part_exclusion ATTACH PARTITION part_exclusion_2 FOR VALUES FROM (10) TO (20);
INSERT INTO part_exclusion VALUES (1, '[1,2)'), (1, '[2,3)'), (11, '[1,2)');
\endif
