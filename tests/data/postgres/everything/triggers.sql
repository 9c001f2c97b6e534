-- Triggers, event triggers, rules, row security. What is loud here would raise if it fired while rows are loaded.

CREATE TABLE app.triggered (id integer, v text, "When" timestamptz);
INSERT INTO app.triggered VALUES (1, 'a', now()), (2, 'b', NULL);
CREATE TRIGGER b_loud BEFORE INSERT OR UPDATE OR DELETE ON app.triggered FOR EACH ROW EXECUTE FUNCTION app.loud();
CREATE TRIGGER "After, with ""args""" AFTER UPDATE OF v, "When" ON app.triggered FOR EACH ROW
    WHEN (OLD.v IS DISTINCT FROM NEW.v AND NEW."When" > '2026-01-01 00:00+00') EXECUTE FUNCTION app.quiet('one', 'it''s', E'back\\slash', '2');
CREATE TRIGGER truncated BEFORE TRUNCATE ON app.triggered FOR EACH STATEMENT EXECUTE FUNCTION app.loud();
CREATE TRIGGER by_statement AFTER INSERT ON app.triggered FOR EACH STATEMENT WHEN (pg_trigger_depth() < 5) EXECUTE FUNCTION app.quiet();
CREATE TRIGGER transition AFTER UPDATE ON app.triggered REFERENCING OLD TABLE AS "old Rows" NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION app.quiet();
CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON app.triggered FROM app.accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION app.loud();
CREATE CONSTRAINT TRIGGER not_late AFTER DELETE ON app.triggered NOT DEFERRABLE FOR EACH ROW EXECUTE FUNCTION app.quiet();
CREATE TRIGGER disabled AFTER INSERT ON app.triggered FOR EACH ROW EXECUTE FUNCTION app.loud();
CREATE TRIGGER replica AFTER INSERT ON app.triggered FOR EACH ROW EXECUTE FUNCTION app.quiet();
CREATE TRIGGER always AFTER INSERT ON app.triggered FOR EACH ROW EXECUTE FUNCTION app.loud();
CREATE TRIGGER extension_fate AFTER INSERT ON app.triggered FOR EACH ROW EXECUTE FUNCTION app.quiet();
ALTER TABLE app.triggered DISABLE TRIGGER disabled, ENABLE REPLICA TRIGGER replica, ENABLE ALWAYS TRIGGER always;
ALTER TRIGGER extension_fate ON app.triggered DEPENDS ON EXTENSION pg_trgm;
COMMENT ON TRIGGER b_loud ON app.triggered IS 'raises';
CREATE TRIGGER built_in BEFORE UPDATE ON app.indexed FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger('i', 'pg_catalog.english', 'b');
CREATE TRIGGER same BEFORE UPDATE ON app.indexed FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
-- A foreign key's own triggers, switched off, which pg_dump does not carry: left out.

-- On views, on partitioned tables and on single leaves.
CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON app.over_view FOR EACH ROW EXECUTE FUNCTION app.quiet();
CREATE TRIGGER view_statement BEFORE INSERT ON app.over_view FOR EACH STATEMENT EXECUTE FUNCTION app.quiet();
CREATE TRIGGER everywhere AFTER INSERT ON app.events FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION app.loud();
CREATE TRIGGER off_in_parts AFTER UPDATE ON app.events FOR EACH ROW EXECUTE FUNCTION app.loud();
CREATE TRIGGER before_all BEFORE INSERT ON app.orders FOR EACH ROW EXECUTE FUNCTION app.quiet();
CREATE TRIGGER per_statement AFTER INSERT ON app.orders REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION app.quiet();
CREATE TRIGGER one_leaf AFTER INSERT ON app.events_2025 FOR EACH ROW EXECUTE FUNCTION app.loud();
ALTER TABLE app.events_2026_a DISABLE TRIGGER off_in_parts;
ALTER TABLE app.events_default ENABLE ALWAYS TRIGGER everywhere;
ALTER TABLE ONLY app.orders DISABLE TRIGGER before_all;
COMMENT ON TRIGGER everywhere ON app.events IS 'on all leaves';
CREATE TABLE app.all_off (id integer);
CREATE TRIGGER t1 AFTER INSERT ON app.all_off FOR EACH ROW EXECUTE FUNCTION app.loud();
ALTER TABLE app.all_off DISABLE TRIGGER ALL;
INSERT INTO app.all_off VALUES (1);

-- Rules.
CREATE TABLE app.ruled (id integer, v text);
INSERT INTO app.ruled VALUES (1, 'a'), (2, 'b');
CREATE TABLE app.rule_log (id integer, what text, at timestamptz DEFAULT now());
CREATE RULE also AS ON INSERT TO app.ruled DO ALSO INSERT INTO app.rule_log (id, what) VALUES (NEW.id, 'inserted');
CREATE RULE "Several things" AS ON UPDATE TO app.ruled WHERE OLD.id <> NEW.id DO ALSO (INSERT INTO app.rule_log (id, what) VALUES (OLD.id, 'it''s "old"'); UPDATE app.rule_log SET at = now() WHERE id = NEW.id;);
CREATE RULE tells AS ON UPDATE TO app.ruled DO ALSO NOTIFY "Changed", 'pay''load';
CREATE RULE nothing AS ON DELETE TO app.ruled WHERE OLD.id = 1 DO INSTEAD NOTHING;
CREATE RULE off AS ON DELETE TO app.ruled DO ALSO DELETE FROM app.rule_log WHERE id = OLD.id;
CREATE RULE replica AS ON INSERT TO app.ruled DO ALSO NOTIFY a;
CREATE RULE always AS ON INSERT TO app.ruled DO ALSO NOTIFY b;
ALTER TABLE app.ruled DISABLE RULE off, ENABLE REPLICA RULE replica, ENABLE ALWAYS RULE always;
CREATE RULE into_view AS ON INSERT TO app.barrier DO INSTEAD INSERT INTO app.in_space VALUES (NEW.id, NEW.name) RETURNING id, v;
CREATE RULE update_view AS ON UPDATE TO app.barrier DO INSTEAD UPDATE app.in_space SET v = NEW.name WHERE id = OLD.id;
COMMENT ON RULE also ON app.ruled IS 'writes a log';
INSERT INTO app.rule_log VALUES (0, 'by hand', '2026-01-01 00:00+00');

-- Row security.
CREATE TABLE app.secured (id integer, who name DEFAULT current_user, v text);
INSERT INTO app.secured VALUES (1, 'lifeboat_reader', 'a'), (2, 'lifeboat_writer', 'b'), (3, 'nobody', 'hidden from all');
ALTER TABLE app.secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, OWNER TO lifeboat_owner;
CREATE POLICY own ON app.secured USING (who = current_user);
CREATE POLICY "May Read" ON app.secured AS PERMISSIVE FOR SELECT TO lifeboat_reader, "Lifeboat ""Röle"" 50%\ 'x'" USING (id IN (SELECT id FROM app.accounts) AND v <> 'it''s');
CREATE POLICY restrict ON app.secured AS RESTRICTIVE FOR UPDATE TO public USING (true) WITH CHECK (id > 0);
CREATE POLICY may_add ON app.secured FOR INSERT TO lifeboat_writer, CURRENT_USER WITH CHECK (app.account_exists(id));
CREATE POLICY may_delete ON app.secured FOR DELETE USING (false);
COMMENT ON POLICY own ON app.secured IS 'one''s own';
CREATE TABLE app.secured_not_on (id integer);
CREATE POLICY asleep ON app.secured_not_on USING (id > 5);
CREATE TABLE app.secured_no_policy (id integer);
ALTER TABLE app.secured_no_policy ENABLE ROW LEVEL SECURITY;
INSERT INTO app.secured_not_on VALUES (1);
INSERT INTO app.secured_no_policy VALUES (1);
CREATE TABLE app.forced_only (id integer);
ALTER TABLE app.forced_only FORCE ROW LEVEL SECURITY;
ALTER TABLE app.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY part ON app.events USING (id > 0);

-- Event triggers. The loud ones are switched off, or no more could be done here.
CREATE EVENT TRIGGER on_start ON ddl_command_start EXECUTE FUNCTION app.on_event();
CREATE EVENT TRIGGER "On End" ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE INDEX') EXECUTE FUNCTION app.on_event();
CREATE EVENT TRIGGER on_drop ON sql_drop WHEN TAG IN ('DROP SEQUENCE') EXECUTE FUNCTION app.on_event();
CREATE EVENT TRIGGER on_rewrite ON table_rewrite EXECUTE FUNCTION app.on_event();
CREATE EVENT TRIGGER disabled ON ddl_command_start EXECUTE FUNCTION app.loud_event();
CREATE EVENT TRIGGER replica ON ddl_command_end EXECUTE FUNCTION app.loud_event();
CREATE EVENT TRIGGER always ON ddl_command_end EXECUTE FUNCTION app.on_event();
ALTER EVENT TRIGGER disabled DISABLE;
ALTER EVENT TRIGGER replica ENABLE REPLICA;
ALTER EVENT TRIGGER always ENABLE ALWAYS;
\if :v17
CREATE EVENT TRIGGER on_login ON login EXECUTE FUNCTION app.on_event();
ALTER EVENT TRIGGER on_login DISABLE;
\endif
COMMENT ON EVENT TRIGGER on_start IS 'watches';
