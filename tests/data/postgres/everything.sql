-- One database with every kind of object that a schema can hold, and every option of each, with rows in every table.
--
--   psql -f roles.sql; createdb d; psql -d d -f everything.sql
--
-- As a superuser, on 13 to 18; what only newer majors have is behind \if. What pg_dump itself does not bring back
-- as it was is left out, each with a word on why, since pg_dump is the measure. Not here, for lack of anything to
-- make them with: security labels (no provider), lz4 (not in all builds), procedural languages written in C.
\set ON_ERROR_STOP on
\set QUIET on
\pset tuples_only on
\o /dev/null
SET client_min_messages = warning;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET check_function_bodies = on;

SELECT v >= 140000 AS v14, v >= 150000 AS v15, v >= 160000 AS v16, v >= 170000 AS v17, v >= 180000 AS v18
  FROM (SELECT current_setting('server_version_num')::int AS v) AS server
\gset

\ir everything/schemas.sql
\ir everything/types.sql
\ir everything/functions.sql
\ir everything/operators.sql
\ir everything/text_search.sql
\ir everything/tables.sql
\ir everything/constraints.sql
\ir everything/indexes.sql
\ir everything/views.sql
\ir everything/triggers.sql
\ir everything/cycles.sql
\ir everything/foreign.sql
\ir everything/names.sql
\ir everything/privileges.sql
\ir everything/replication.sql
