-- Functions, procedures and aggregates that need no tables; others stand with what they need.

CREATE FUNCTION app.add(a integer, b integer DEFAULT 1, c integer DEFAULT NULL) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 5 AS 'SELECT a + b + coalesce(c, 0)';
CREATE FUNCTION app.add(text, text DEFAULT E'it''s \\ "so"') RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$SELECT $1 || $2$$;
CREATE FUNCTION app.add() RETURNS integer LANGUAGE sql AS 'SELECT 0';
CREATE FUNCTION app.dollars() RETURNS text LANGUAGE plpgsql AS $body$
BEGIN
    -- $$ and $_$ and $function$ and \ and 'quotes' and a tab	and Unicode é 日本 🚢
    RETURN $$a$$ || $_$b$_$ || $function$c$function$;
END
$body$;
CREATE FUNCTION app.crlf() RETURNS text LANGUAGE sql AS E'SELECT ''a\r\nb''::text\r\n';
CREATE FUNCTION app.outs(IN a integer, OUT b integer, INOUT c text, OUT "D d" app.mood, VARIADIC rest integer[] DEFAULT '{}')
    LANGUAGE plpgsql STABLE AS $$ BEGIN b := a; "D d" := 'ok'; END $$;
CREATE FUNCTION app.sum_of(VARIADIC numbers numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT sum(n) FROM unnest(numbers) AS n';
CREATE FUNCTION app.any_of(VARIADIC "any") RETURNS integer LANGUAGE internal IMMUTABLE AS 'pg_num_nonnulls';
CREATE FUNCTION app.set_of(n integer) RETURNS SETOF integer LANGUAGE sql ROWS 7 AS 'SELECT generate_series(1, n)';
CREATE FUNCTION app.table_of(n integer) RETURNS TABLE (id integer, "the name" text, place app.address)
    LANGUAGE sql ROWS 100 COST 1000 AS 'SELECT g, g::text, NULL::app.address FROM generate_series(1, n) AS g';
CREATE FUNCTION app.records() RETURNS SETOF record LANGUAGE sql AS 'SELECT 1, 2';
CREATE FUNCTION app.nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION app.poly(a anyelement, b anyarray) RETURNS anyarray LANGUAGE sql IMMUTABLE AS 'SELECT array_append(b, a)';
CREATE FUNCTION app.careful(secret text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER LEAKPROOF PARALLEL RESTRICTED COST 0.5
    SET search_path = app, pg_temp SET work_mem = '8MB' SET "DateStyle" = 'ISO, DMY' SET my.setting = 'a ''b'' \c' SET temp_tablespaces = ''
    AS $$ BEGIN RETURN secret <> ''; END $$;
CREATE FUNCTION app.series(integer, integer) RETURNS SETOF integer
    LANGUAGE internal STRICT IMMUTABLE ROWS 500 SUPPORT generate_series_int4_support AS 'generate_series_int4';
CREATE FUNCTION app.my_rank() RETURNS bigint LANGUAGE internal WINDOW IMMUTABLE AS 'window_rank';
CREATE FUNCTION app.transformed(a integer) RETURNS integer TRANSFORM FOR TYPE int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION app.in_my_language() RETURNS integer LANGUAGE "plMine" AS 'BEGIN RETURN 1; END';
CREATE FUNCTION app."Odd (name), ""x"" %s \"("arg ""1""" integer, "select" text DEFAULT 'a,b') RETURNS text LANGUAGE sql AS 'SELECT "select"';
CREATE FUNCTION app.loud() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a trigger fired: % on %', TG_OP, TG_TABLE_NAME; END $$;
CREATE FUNCTION app.quiet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(NEW, OLD); END $$;
CREATE FUNCTION app.on_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION app.loud_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'an event trigger fired: %', TG_TAG; END $$;
-- One that needs another, which a dump could meet the wrong way round.
CREATE FUNCTION app.z_first(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION app.a_second(a integer DEFAULT app.z_first(21)) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT app.z_first(a)';
-- A function on a type whose domain check calls a function.
CREATE DOMAIN app.even AS integer CHECK (app.z_first(VALUE) % 4 = 0);
CREATE FUNCTION app.half(app.even) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1 / 2';
CREATE DOMAIN app.quarter AS integer CHECK (app.half(VALUE::app.even) > 0);
-- Members of an extension's fate, though not of the extension.
CREATE FUNCTION app.needs_trgm(text, text) RETURNS real LANGUAGE sql AS 'SELECT public.similarity($1, $2)';
ALTER FUNCTION app.needs_trgm(text, text) DEPENDS ON EXTENSION pg_trgm;
\if :v14
CREATE FUNCTION app.atomic(a integer, b text DEFAULT 'it''s') RETURNS text LANGUAGE sql IMMUTABLE RETURN a::text || b || app.z_first(a)::text;
CREATE FUNCTION app.atomic_block(n integer) RETURNS SETOF integer LANGUAGE sql
    BEGIN ATOMIC
        SELECT app.atomic(n)::int;
        SELECT g FROM generate_series(1, n) AS g (g) WHERE g > 1;
    END;
CREATE PROCEDURE app.with_out(IN a integer, OUT b integer, INOUT c integer DEFAULT 5) LANGUAGE plpgsql AS $$ BEGIN b := a; END $$;
CREATE FUNCTION app.compatible(anycompatible, anycompatiblearray) RETURNS anycompatible LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION app.multi(anymultirange) RETURNS anyrange LANGUAGE sql AS 'SELECT range_merge($1)';
\endif
CREATE PROCEDURE app.work(a integer, INOUT b text DEFAULT 'x') LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$ BEGIN b := a::text; END $$;
CREATE PROCEDURE app.work() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
COMMENT ON FUNCTION app.add(integer, integer, integer) IS 'adds';
COMMENT ON FUNCTION app.outs IS 'gives several';
COMMENT ON PROCEDURE app.work(integer, text) IS 'works';
ALTER FUNCTION app.careful(text) OWNER TO lifeboat_owner;
ALTER PROCEDURE app.work() OWNER TO lifeboat_writer;
ALTER FUNCTION app."Odd (name), ""x"" %s \"(integer, text) OWNER TO "Lifeboat ""Röle"" 50%\ 'x'";

-- Aggregates.
CREATE FUNCTION app.add_up(state bigint, value integer) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT state + coalesce(value, 0)';
CREATE FUNCTION app.take_off(state bigint, value integer) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT state - coalesce(value, 0)';
CREATE FUNCTION app.finish(state bigint) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT state::text';
CREATE FUNCTION app.finish_extra(state bigint, value integer) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT state::text';
CREATE AGGREGATE app.total(integer) (SFUNC = app.add_up, STYPE = bigint, INITCOND = '0');
CREATE AGGREGATE app.total_full(value integer) (
    SFUNC = app.add_up, STYPE = bigint, SSPACE = 64, FINALFUNC = app.finish, FINALFUNC_MODIFY = SHAREABLE, COMBINEFUNC = int8pl, INITCOND = '0',
    MSFUNC = app.add_up, MINVFUNC = app.take_off, MSTYPE = bigint, MSSPACE = 32, MFINALFUNC = app.finish_extra, MFINALFUNC_EXTRA,
    MFINALFUNC_MODIFY = READ_WRITE, MINITCOND = '00', PARALLEL = SAFE
);
CREATE AGGREGATE app.average(numeric) (
    SFUNC = numeric_avg_accum, STYPE = internal, SSPACE = 128, FINALFUNC = numeric_avg,
    COMBINEFUNC = numeric_avg_combine, SERIALFUNC = numeric_avg_serialize, DESERIALFUNC = numeric_avg_deserialize, PARALLEL = RESTRICTED
);
CREATE AGGREGATE app.greatest_of(integer) (SFUNC = int4larger, STYPE = integer, SORTOP = >);
CREATE AGGREGATE app.percentile(float8 ORDER BY float8) (
    SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_cont_float8_final
);
CREATE AGGREGATE app.hypothetical(VARIADIC "any" ORDER BY VARIADIC "any") (
    SFUNC = ordered_set_transition_multi, STYPE = internal, FINALFUNC = rank_final, FINALFUNC_EXTRA, HYPOTHETICAL
);
CREATE AGGREGATE app.counted(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0');
CREATE AGGREGATE app.two_of(text, text) (SFUNC = string_agg_transfn, STYPE = internal, FINALFUNC = string_agg_finalfn);
CREATE AGGREGATE app.gather(ints integer) (SFUNC = array_append, STYPE = integer[], INITCOND = '{}');
COMMENT ON AGGREGATE app.total(integer) IS 'a sum';
COMMENT ON AGGREGATE app.counted(*) IS 'a count';
COMMENT ON AGGREGATE app.percentile(float8 ORDER BY float8) IS 'a percentile';
ALTER AGGREGATE app.total(integer) OWNER TO lifeboat_owner;
