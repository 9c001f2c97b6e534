-- Roles and a tablespace for the test databases. They belong to the whole server; running this again is harmless.
\set ON_ERROR_STOP on
SET client_min_messages = warning;

SELECT format('CREATE ROLE %I', name)
  FROM unnest(ARRAY['lifeboat_owner', 'lifeboat_reader', 'lifeboat_writer', 'lifeboat_admin', 'Lifeboat "Röle" 50%\ ''x'''])
       AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

-- In place: inside the data folder, so no folder has to be made for it.
SET allow_in_place_tablespaces = true;
SELECT 'CREATE TABLESPACE lifeboat_space LOCATION '''''
 WHERE NOT EXISTS (SELECT FROM pg_tablespace WHERE spcname = 'lifeboat_space')
\gexec
GRANT CREATE ON TABLESPACE lifeboat_space TO lifeboat_owner;
