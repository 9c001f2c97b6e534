-- Publications and subscriptions. Last, since the event of a publication for all tables is of all that stands above.

CREATE PUBLICATION empty_publication;
CREATE PUBLICATION all_of_it FOR ALL TABLES WITH (publish = 'insert, truncate');
CREATE PUBLICATION "Some ""tables""" FOR TABLE app.accounts, ONLY app.parent_a, app.replica_full WITH (publish = 'update,delete');
CREATE PUBLICATION via_root FOR TABLE app.events, app.orders_eu WITH (publish_via_partition_root = true);
CREATE PUBLICATION of_nothing WITH (publish = '');
COMMENT ON PUBLICATION via_root IS 'as one table';
ALTER PUBLICATION via_root OWNER TO lifeboat_owner;
\if :v15
CREATE PUBLICATION of_schemas FOR TABLES IN SCHEMA other, "Odd ""Schema"". /%\é", TABLE app.keys;
CREATE PUBLICATION with_filters FOR TABLE app.accounts (id, mood, quoted) WHERE (id > 5 AND quoted <> 'it''s'), app.tree WHERE ((parent IS NOT NULL)), app.replica_key (b, a);
\endif
\if :v18
CREATE PUBLICATION with_generated FOR TABLE app.generated WITH (publish_generated_columns = stored);
\endif

SET client_min_messages = error;
CREATE SUBSCRIPTION plain_subscription CONNECTION 'host=127.0.0.1 port=1 dbname=far' PUBLICATION one WITH (connect = false);
CREATE SUBSCRIPTION "Sub ""scription""" CONNECTION 'host=127.0.0.1 port=1 user=far password=''a secret of the publisher'' application_name=''it\''s'''
    PUBLICATION one, "Two ""2""" WITH (connect = false, slot_name = 'other_slot', synchronous_commit = 'remote_apply');
CREATE SUBSCRIPTION no_slot CONNECTION 'dbname=far port=1' PUBLICATION one WITH (connect = false, slot_name = NONE);
\if :v14
CREATE SUBSCRIPTION options_14 CONNECTION 'dbname=far port=1' PUBLICATION one WITH (connect = false, binary = true, streaming = true);
\endif
\if :v15
CREATE SUBSCRIPTION options_15 CONNECTION 'dbname=far port=1' PUBLICATION one WITH (connect = false, two_phase = true, disable_on_error = true);
\endif
\if :v16
CREATE SUBSCRIPTION options_16 CONNECTION 'dbname=far port=1 password=x' PUBLICATION one WITH (connect = false, streaming = parallel, password_required = false, run_as_owner = true, origin = none);
\endif
\if :v17
CREATE SUBSCRIPTION options_17 CONNECTION 'dbname=far port=1' PUBLICATION one WITH (connect = false, failover = true);
\endif
COMMENT ON SUBSCRIPTION no_slot IS 'switched off';
\if :v16
-- Before, only a superuser may own one.
ALTER SUBSCRIPTION no_slot OWNER TO lifeboat_admin;
\endif
