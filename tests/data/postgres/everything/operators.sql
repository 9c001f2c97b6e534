-- Operators, their families and classes, casts.

CREATE FUNCTION app.point3_eq(app.point3, app.point3) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ($1).x = ($2).x';
CREATE FUNCTION app.point3_ne(app.point3, app.point3) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ($1).x <> ($2).x';
CREATE FUNCTION app.point3_lt(app.point3, app.point3) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ($1).x < ($2).x';
CREATE FUNCTION app.point3_le(app.point3, app.point3) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ($1).x <= ($2).x';
CREATE FUNCTION app.point3_gt(app.point3, app.point3) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ($1).x > ($2).x';
CREATE FUNCTION app.point3_ge(app.point3, app.point3) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ($1).x >= ($2).x';
CREATE FUNCTION app.point3_cmp(app.point3, app.point3) RETURNS integer LANGUAGE sql IMMUTABLE STRICT
    AS 'SELECT CASE WHEN ($1).x < ($2).x THEN -1 WHEN ($1).x > ($2).x THEN 1 ELSE 0 END';
CREATE FUNCTION app.point3_hash(app.point3) RETURNS integer LANGUAGE sql IMMUTABLE STRICT AS 'SELECT hashfloat8(($1).x)';
CREATE FUNCTION app.point3_hash64(app.point3, bigint) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT AS 'SELECT hashfloat8extended(($1).x, $2)';
CREATE FUNCTION app.point3_neg(app.point3) RETURNS app.point3 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ROW(-($1).x, ($1).y, ($1).height)::app.point3';

CREATE OPERATOR app.= (FUNCTION = app.point3_eq, LEFTARG = app.point3, RIGHTARG = app.point3, COMMUTATOR = OPERATOR(app.=),
    NEGATOR = OPERATOR(app.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES);
CREATE OPERATOR app.<> (FUNCTION = app.point3_ne, LEFTARG = app.point3, RIGHTARG = app.point3, COMMUTATOR = OPERATOR(app.<>),
    NEGATOR = OPERATOR(app.=), RESTRICT = neqsel, JOIN = neqjoinsel);
CREATE OPERATOR app.< (FUNCTION = app.point3_lt, LEFTARG = app.point3, RIGHTARG = app.point3, COMMUTATOR = OPERATOR(app.>),
    NEGATOR = OPERATOR(app.>=), RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE OPERATOR app.<= (FUNCTION = app.point3_le, LEFTARG = app.point3, RIGHTARG = app.point3, COMMUTATOR = OPERATOR(app.>=), NEGATOR = OPERATOR(app.>));
CREATE OPERATOR app.> (FUNCTION = app.point3_gt, LEFTARG = app.point3, RIGHTARG = app.point3, COMMUTATOR = OPERATOR(app.<), NEGATOR = OPERATOR(app.<=));
CREATE OPERATOR app.>= (FUNCTION = app.point3_ge, LEFTARG = app.point3, RIGHTARG = app.point3, COMMUTATOR = OPERATOR(app.<=), NEGATOR = OPERATOR(app.<));
CREATE OPERATOR app.!! (FUNCTION = app.point3_neg, RIGHTARG = app.point3);
CREATE OPERATOR "Odd ""Schema"". /%\é".<-> (FUNCTION = app.add, LEFTARG = text, RIGHTARG = text);
COMMENT ON OPERATOR app.= (app.point3, app.point3) IS 'the same x';
COMMENT ON OPERATOR app.!! (NONE, app.point3) IS 'turned round';
ALTER OPERATOR app.<= (app.point3, app.point3) OWNER TO lifeboat_owner;

CREATE OPERATOR FAMILY app.point3_family USING btree;
CREATE OPERATOR FAMILY app."Empty Family" USING hash;
CREATE OPERATOR CLASS app.point3_ops DEFAULT FOR TYPE app.point3 USING btree FAMILY app.point3_family AS
    OPERATOR 1 app.<, OPERATOR 2 app.<=, OPERATOR 3 app.=, OPERATOR 4 app.>=, OPERATOR 5 app.>, FUNCTION 1 app.point3_cmp(app.point3, app.point3);
CREATE OPERATOR CLASS app.point3_hash_ops DEFAULT FOR TYPE app.point3 USING hash AS
    OPERATOR 1 app.=, FUNCTION 1 app.point3_hash(app.point3), FUNCTION 2 app.point3_hash64(app.point3, bigint);
-- Loose members of a family, across types; and a class with a storage type and an ordering operator.
CREATE FUNCTION app.point3_x_cmp(app.point3, float8) RETURNS integer LANGUAGE sql IMMUTABLE STRICT AS 'SELECT CASE WHEN ($1).x < $2 THEN -1 ELSE 1 END';
CREATE FUNCTION app.point3_x_lt(app.point3, float8) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ($1).x < $2';
CREATE OPERATOR app.< (FUNCTION = app.point3_x_lt, LEFTARG = app.point3, RIGHTARG = float8);
ALTER OPERATOR FAMILY app.point3_family USING btree ADD
    OPERATOR 1 app.< (app.point3, float8), FUNCTION 1 (app.point3, float8) app.point3_x_cmp(app.point3, float8);
CREATE OPERATOR CLASS app.my_point_ops FOR TYPE point USING gist AS
    OPERATOR 1 <<, OPERATOR 11 >^, OPERATOR 6 ~=, OPERATOR 15 <-> (point, point) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 gist_point_consistent(internal, point, smallint, oid, internal), FUNCTION 2 gist_box_union(internal, internal),
    FUNCTION 3 gist_point_compress(internal), FUNCTION 5 gist_box_penalty(internal, internal, internal),
    FUNCTION 6 gist_box_picksplit(internal, internal), FUNCTION 7 gist_box_same(box, box, internal),
    FUNCTION 8 gist_point_distance(internal, point, smallint, oid, internal), STORAGE box;
CREATE OPERATOR CLASS app.box_ops2 DEFAULT FOR TYPE box USING gist2 AS
    OPERATOR 1 <<, OPERATOR 3 &&, OPERATOR 7 @>, OPERATOR 8 <@,
    FUNCTION 1 gist_box_consistent(internal, box, smallint, oid, internal), FUNCTION 2 gist_box_union(internal, internal),
    FUNCTION 5 gist_box_penalty(internal, internal, internal), FUNCTION 6 gist_box_picksplit(internal, internal),
    FUNCTION 7 gist_box_same(box, box, internal);
COMMENT ON OPERATOR FAMILY app.point3_family USING btree IS 'a family';
COMMENT ON OPERATOR CLASS app.point3_ops USING btree IS 'a class';
ALTER OPERATOR FAMILY app.point3_family USING btree OWNER TO lifeboat_owner;
ALTER OPERATOR CLASS app.point3_ops USING btree OWNER TO lifeboat_writer;

-- Casts: by a function with one, two and three arguments, binary, through text.
CREATE FUNCTION app.to_point3(float8) RETURNS app.point3 LANGUAGE sql IMMUTABLE AS 'SELECT ROW($1, 0, 0)::app.point3';
CREATE FUNCTION app.to_textual(app.textual, integer, boolean) RETURNS app.textual LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION app.to_address(text) RETURNS app.address LANGUAGE sql IMMUTABLE AS $$SELECT ROW($1, '', NULL, NULL, NULL, NULL)::app.address$$;
CREATE FUNCTION app.from_ltree("Odd ""Schema"". /%\é".ltree) RETURNS integer LANGUAGE sql IMMUTABLE AS $$SELECT "Odd ""Schema"". /%\é".nlevel($1)$$;
CREATE CAST (float8 AS app.point3) WITH FUNCTION app.to_point3(float8);
CREATE CAST (text AS app.address) WITH FUNCTION app.to_address(text) AS ASSIGNMENT;
CREATE CAST (app.textual AS app.textual) WITH FUNCTION app.to_textual(app.textual, integer, boolean) AS IMPLICIT;
CREATE CAST (app.textual AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (text AS app.textual) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (app.number AS integer) WITHOUT FUNCTION;
CREATE CAST (app.mood AS app.textual) WITH INOUT AS ASSIGNMENT;
CREATE CAST ("Odd ""Schema"". /%\é".ltree AS integer) WITH FUNCTION app.from_ltree;
COMMENT ON CAST (float8 AS app.point3) IS 'on the x axis';

-- Half made: its commutator and negator were named and never made.
CREATE FUNCTION app.point3_near(app.point3, app.point3) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT abs(($1).x - ($2).x) < 1';
CREATE OPERATOR app.~=~ (FUNCTION = app.point3_near, LEFTARG = app.point3, RIGHTARG = app.point3, NEGATOR = OPERATOR(app.!~=~));
