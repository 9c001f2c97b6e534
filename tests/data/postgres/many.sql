-- 300 tables with foreign keys between them, rows, indexes.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
DO $$
DECLARE
    n integer;
BEGIN
    FOR n IN 1..300 LOOP
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS part_%s', n % 7);
        EXECUTE format(
            'CREATE TABLE part_%s.table_%s (id integer PRIMARY KEY, code text NOT NULL UNIQUE, value numeric(12, 2), next integer, at timestamptz DEFAULT now(), note text)',
            n % 7, n);
        EXECUTE format('INSERT INTO part_%s.table_%s SELECT g, ''code '' || g, g / 3.0, g, timestamptz ''2026-01-01 00:00+00'', md5(g::text) FROM generate_series(1, %s) AS g', n % 7, n, 100);
        EXECUTE format('CREATE INDEX ON part_%s.table_%s (at, value)', n % 7, n);
        EXECUTE format('COMMENT ON TABLE part_%s.table_%s IS %L', n % 7, n, 'number ' || n);
        IF n % 3 = 0 THEN
            EXECUTE format('CREATE INDEX ON part_%s.table_%s (lower(note)) WHERE value > 10', n % 7, n);
        END IF;
    END LOOP;
    -- Each refers to the one after it, the last to the first: a circle; every tenth to itself as well.
    FOR n IN 1..300 LOOP
        EXECUTE format('ALTER TABLE part_%s.table_%s ADD CONSTRAINT to_next FOREIGN KEY (next) REFERENCES part_%s.table_%s DEFERRABLE',
            n % 7, n, (n % 300 + 1) % 7, n % 300 + 1);
        IF n % 10 = 0 THEN
            EXECUTE format('ALTER TABLE part_%s.table_%s ADD CONSTRAINT to_itself FOREIGN KEY (next) REFERENCES part_%1$s.table_%2$s', n % 7, n);
        END IF;
        IF n % 20 = 0 THEN
            EXECUTE format('CREATE VIEW part_%s.view_%s AS SELECT a.*, b.code AS next_code FROM part_%1$s.table_%2$s AS a JOIN part_%s.table_%s AS b ON b.id = a.next',
                n % 7, n, (n % 300 + 1) % 7, n % 300 + 1);
        END IF;
    END LOOP;
END
$$;
