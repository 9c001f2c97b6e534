-- Foreign data wrappers, servers, user mappings, foreign tables, large objects.

CREATE FOREIGN DATA WRAPPER bare;
CREATE FOREIGN DATA WRAPPER "Own fdw" HANDLER postgres_fdw_handler VALIDATOR postgres_fdw_validator;
CREATE FOREIGN DATA WRAPPER with_options OPTIONS (one 'it''s', "Two words" E'back\\slash "quoted"');
COMMENT ON FOREIGN DATA WRAPPER bare IS 'does nothing';
ALTER FOREIGN DATA WRAPPER with_options OWNER TO postgres;

CREATE SERVER bare_server FOREIGN DATA WRAPPER bare;
CREATE SERVER "Far ""away""" TYPE 'the type' VERSION '1.2 ''beta''' FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host '127.0.0.1', port '1', dbname 'no such', fetch_size '50', extensions 'citext');
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE SERVER odd_server VERSION 'v' FOREIGN DATA WRAPPER with_options OPTIONS ("key with space" '', k 'v');
COMMENT ON SERVER bare_server IS 'nowhere';
ALTER SERVER bare_server OWNER TO lifeboat_owner;

CREATE USER MAPPING FOR postgres SERVER bare_server OPTIONS ("user" 'me', other 'it''s');
CREATE USER MAPPING FOR PUBLIC SERVER bare_server;
CREATE USER MAPPING FOR lifeboat_reader SERVER "Far ""away""" OPTIONS ("user" 'far', password 'a secret of the far server');
CREATE USER MAPPING FOR "Lifeboat ""Röle"" 50%\ 'x'" SERVER "Far ""away""" OPTIONS ("user" 'röle');

CREATE FOREIGN TABLE app.foreign_one (
    id integer OPTIONS (column_name 'Far Id') NOT NULL, v text COLLATE "C" DEFAULT 'x''y', d app.positive,
    g integer GENERATED ALWAYS AS (id * 2) STORED, CONSTRAINT positive CHECK (id > 0)
) SERVER "Far ""away""" OPTIONS (schema_name 'it''s', table_name 'Their "table"', use_remote_estimate 'true');
CREATE FOREIGN TABLE app.no_options (a integer) SERVER bare_server;
ALTER FOREIGN TABLE app.foreign_one ALTER v SET STATISTICS 33, ALTER v OPTIONS (ADD column_name 'v, %'), ALTER id SET (n_distinct = 4);
CREATE FOREIGN TABLE app.foreign_child (more integer) INHERITS (app.parent_c) SERVER bare_server;
CREATE TABLE app.part_foreign (id integer NOT NULL, v text DEFAULT 'd') PARTITION BY RANGE (id);
CREATE TABLE app.part_foreign_here PARTITION OF app.part_foreign FOR VALUES FROM (0) TO (100);
CREATE FOREIGN TABLE app.part_foreign_far PARTITION OF app.part_foreign (v DEFAULT 'far') FOR VALUES FROM (100) TO (200) SERVER "Far ""away""" OPTIONS (table_name 'far');
CREATE FOREIGN TABLE app.attached_far (v text, id integer NOT NULL) SERVER bare_server;
ALTER TABLE app.part_foreign ATTACH PARTITION app.attached_far FOR VALUES FROM (200) TO (300);
INSERT INTO app.part_foreign VALUES (1), (2);
CREATE TRIGGER on_foreign AFTER INSERT ON app.foreign_one FOR EACH ROW EXECUTE FUNCTION app.quiet();
CREATE VIEW app.over_foreign AS SELECT id, v FROM app.foreign_one;
COMMENT ON FOREIGN TABLE app.foreign_one IS 'far away';
COMMENT ON COLUMN app.foreign_one.v IS 'theirs';
ALTER FOREIGN TABLE app.no_options OWNER TO lifeboat_owner;

-- Large objects: empty, with text, with every byte, with a hole.
SELECT lo_create(424240), lo_from_bytea(424241, 'some text'::bytea),
       lo_from_bytea(424242, (SELECT string_agg(decode(lpad(to_hex(g), 2, '0'), 'hex'), '' ORDER BY g) FROM generate_series(0, 255) AS g)), lo_create(424243);
SELECT lo_put(424243, 5000000, '\x00ff00');
COMMENT ON LARGE OBJECT 424241 IS 'some ''text''';
ALTER LARGE OBJECT 424242 OWNER TO lifeboat_owner;
GRANT SELECT ON LARGE OBJECT 424241 TO lifeboat_reader;
GRANT SELECT, UPDATE ON LARGE OBJECT 424242 TO lifeboat_writer WITH GRANT OPTION;
REVOKE UPDATE ON LARGE OBJECT 424242 FROM lifeboat_owner;
CREATE TABLE app.with_large_objects (id integer, body oid);
INSERT INTO app.with_large_objects VALUES (1, 424241), (2, 424242);
