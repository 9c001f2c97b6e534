-- Keys, checks, exclusions, foreign keys; rows that a restore in the wrong order would refuse.

CREATE TABLE app.keys (
    id integer CONSTRAINT "The Key" PRIMARY KEY WITH (fillfactor = 60),
    a integer UNIQUE,
    b integer,
    c integer,
    period tsrange,
    UNIQUE (a, b) INCLUDE (c),
    CONSTRAINT later UNIQUE (b, c) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT can_wait UNIQUE (c, a) DEFERRABLE,
    CONSTRAINT no_overlap EXCLUDE USING gist (a WITH =, period WITH &&) WHERE (b > 0) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT no_equal EXCLUDE USING btree ((a + b) WITH =) INCLUDE (c) WITH (fillfactor = 80),
    CHECK (a IS NULL OR a > 0),
    CONSTRAINT "a, b ""and"" c" CHECK (a + b + c < 1000000 AND period IS DISTINCT FROM 'empty')
);
INSERT INTO app.keys SELECT g, g, g, g, tsrange('2026-01-01'::timestamp + g * interval '1 day', '2026-01-02'::timestamp + g * interval '1 day') FROM generate_series(1, 20) AS g;
ALTER TABLE app.keys ADD CONSTRAINT not_checked CHECK (id > 10) NOT VALID;
COMMENT ON CONSTRAINT "The Key" ON app.keys IS 'the key';
COMMENT ON CONSTRAINT not_checked ON app.keys IS 'old rows break it';
COMMENT ON CONSTRAINT no_overlap ON app.keys IS 'one at a time';
\if :v15
ALTER TABLE app.keys ADD CONSTRAINT one_null UNIQUE NULLS NOT DISTINCT (a, c, b);
\endif

-- A key over an index that was there before, and renamed by it.
CREATE TABLE app.keys_by_index (id integer NOT NULL, v integer NOT NULL);
CREATE UNIQUE INDEX some_index ON app.keys_by_index (v) INCLUDE (id) WITH (fillfactor = 55);
ALTER TABLE app.keys_by_index ADD CONSTRAINT v_key UNIQUE USING INDEX some_index;
INSERT INTO app.keys_by_index VALUES (1, 1);

-- Foreign keys with every action and match; to itself, round in a circle, not valid.
CREATE TABLE app.tree (id integer PRIMARY KEY, parent integer REFERENCES app.tree, name text);
INSERT INTO app.tree SELECT g, CASE WHEN g < 100 THEN g + 1 END, 'node ' || g FROM generate_series(1, 100) AS g;
CREATE TABLE app.chicken (id integer PRIMARY KEY, egg integer NOT NULL);
CREATE TABLE app.egg (id integer PRIMARY KEY, chicken integer NOT NULL REFERENCES app.chicken ON DELETE CASCADE ON UPDATE RESTRICT);
ALTER TABLE app.chicken ADD CONSTRAINT "came first?" FOREIGN KEY (egg) REFERENCES app.egg DEFERRABLE INITIALLY DEFERRED;
BEGIN;
INSERT INTO app.chicken VALUES (1, 1), (2, 2);
INSERT INTO app.egg VALUES (1, 2), (2, 1);
COMMIT;
CREATE TABLE app.refers (
    id integer PRIMARY KEY,
    account integer DEFAULT 1 REFERENCES app.accounts (id) ON UPDATE CASCADE ON DELETE SET DEFAULT DEFERRABLE INITIALLY IMMEDIATE,
    a integer, b integer,
    t text REFERENCES app.of_type (street) ON DELETE SET NULL,
    CONSTRAINT full_match FOREIGN KEY (a, b) REFERENCES app.keys (a, b) MATCH FULL ON UPDATE NO ACTION ON DELETE NO ACTION
);
INSERT INTO app.refers VALUES (1, 1, 1, 1, 'a'), (2, NULL, NULL, NULL, NULL);
INSERT INTO app.refers (id, account) VALUES (3, 50);
ALTER TABLE app.refers DROP CONSTRAINT full_match;
INSERT INTO app.refers VALUES (4, 1, 999, 999, 'a');
ALTER TABLE app.refers ADD CONSTRAINT full_match FOREIGN KEY (a, b) REFERENCES app.keys (a, b) MATCH FULL ON DELETE CASCADE NOT VALID;
COMMENT ON CONSTRAINT full_match ON app.refers IS 'row 4 breaks it';
\if :v15
CREATE TABLE app.set_some (id integer, a integer DEFAULT 3, b integer DEFAULT 4, FOREIGN KEY (a, b) REFERENCES app.keys (a, b) ON DELETE SET NULL (b),
    CONSTRAINT to_default FOREIGN KEY (b, a) REFERENCES app.keys (a, b) ON DELETE SET DEFAULT (a));
INSERT INTO app.set_some VALUES (1, 2, 2);
\endif

-- From, to and between partitioned tables.
CREATE TABLE app.orders (id integer, region text, total app.price, customer integer REFERENCES app.accounts, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE app.orders_eu PARTITION OF app.orders FOR VALUES IN ('eu');
CREATE TABLE app.orders_us (region text NOT NULL, customer integer, id integer NOT NULL, total app.price, extra_key integer, CONSTRAINT own_key PRIMARY KEY (id, region));
ALTER TABLE app.orders_us DROP COLUMN extra_key;
ALTER TABLE app.orders ATTACH PARTITION app.orders_us FOR VALUES IN ('us');
INSERT INTO app.orders SELECT g, CASE WHEN g % 2 = 0 THEN 'eu' ELSE 'us' END, g, g FROM generate_series(1, 40) AS g;
CREATE TABLE app.order_lines (order_id integer, region text, line integer, CHECK (line > 0),
    CONSTRAINT to_orders FOREIGN KEY (order_id, region) REFERENCES app.orders ON DELETE CASCADE, PRIMARY KEY (order_id, region, line)) PARTITION BY HASH (order_id);
CREATE TABLE app.order_lines_0 PARTITION OF app.order_lines FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE app.order_lines_1 PARTITION OF app.order_lines FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO app.order_lines SELECT id, region, 1 FROM app.orders;
CREATE TABLE app.order_notes (order_id integer, region text, note text);
INSERT INTO app.order_notes VALUES (2, 'eu', 'x');
ALTER TABLE app.order_notes ADD CONSTRAINT to_orders FOREIGN KEY (order_id, region) REFERENCES app.orders (id, region) DEFERRABLE;
COMMENT ON CONSTRAINT to_orders ON app.order_lines IS 'its order';

-- A check that reads other tables: pg_dump's own restore of the rows depends on their order.
CREATE FUNCTION app.account_exists(integer) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 IN (SELECT id FROM app.accounts)';
CREATE TABLE app.a_checked (account integer, CONSTRAINT must_exist CHECK (app.account_exists(account)));
INSERT INTO app.a_checked VALUES (1), (50);
CREATE FUNCTION app.tree_size() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM app.tree';
CREATE TABLE app.a_default (id integer DEFAULT app.tree_size(), v text);
INSERT INTO app.a_default (v) VALUES ('x');

\if :v18
CREATE TABLE app.not_enforced (id integer, account integer, CONSTRAINT wish CHECK (id > 100) NOT ENFORCED,
    CONSTRAINT wished FOREIGN KEY (account) REFERENCES app.accounts NOT ENFORCED);
INSERT INTO app.not_enforced VALUES (1, 12345);
CREATE TABLE app.temporal (id integer, valid daterange, v text, PRIMARY KEY (id, valid WITHOUT OVERLAPS), CONSTRAINT other_way UNIQUE (v, valid WITHOUT OVERLAPS) DEFERRABLE);
CREATE TABLE app.temporal_ref (id integer, valid daterange, CONSTRAINT in_time FOREIGN KEY (id, PERIOD valid) REFERENCES app.temporal (id, PERIOD valid));
INSERT INTO app.temporal VALUES (1, '[2026-01-01,2026-06-01)', 'a'), (1, '[2026-06-01,2027-01-01)', 'b');
INSERT INTO app.temporal_ref VALUES (1, '[2026-02-01,2026-12-01)');
-- A key not valid on a partitioned table.
CREATE TABLE app.part_fk (id integer, account integer) PARTITION BY RANGE (id);
CREATE TABLE app.part_fk_1 PARTITION OF app.part_fk FOR VALUES FROM (0) TO (10);
INSERT INTO app.part_fk VALUES (1, 99999);
ALTER TABLE app.part_fk ADD CONSTRAINT part_fk_later FOREIGN KEY (account) REFERENCES app.accounts NOT VALID;
\endif

-- To a unique index that is no constraint; with an operator of one's own; a comment on the index of a key.
CREATE TABLE app.target_by_index (id integer NOT NULL, v text);
CREATE UNIQUE INDEX target_index ON app.target_by_index (id);
CREATE TABLE app.to_index (id integer REFERENCES app.target_by_index (id));
INSERT INTO app.target_by_index VALUES (1, 'x'), (2, 'y');
INSERT INTO app.to_index VALUES (1), (2), (NULL);
CREATE TABLE app.own_exclusion (l app.point3, CONSTRAINT different EXCLUDE USING btree (l app.point3_ops WITH OPERATOR(app.=)));
INSERT INTO app.own_exclusion VALUES (ROW(1, 2, 3)), (ROW(2, 2, 3));
COMMENT ON INDEX app.accounts_pkey IS 'the index of a key';
