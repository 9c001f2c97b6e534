-- The main tables of Vaultwarden as its migrations (Diesel) make them in SQLite, with rows.
CREATE TABLE __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE attachments (id TEXT NOT NULL PRIMARY KEY, cipher_uuid TEXT NOT NULL REFERENCES ciphers (uuid), file_name TEXT NOT NULL, file_size INTEGER NOT NULL, akey TEXT);
CREATE TABLE ciphers (uuid TEXT NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, user_uuid TEXT REFERENCES users (uuid), organization_uuid TEXT REFERENCES organizations (uuid), atype INTEGER NOT NULL, name TEXT NOT NULL, notes TEXT, fields TEXT, data TEXT NOT NULL, password_history TEXT, deleted_at DATETIME, reprompt INTEGER, key TEXT);
CREATE TABLE devices (uuid TEXT NOT NULL, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, user_uuid TEXT NOT NULL REFERENCES users (uuid), name TEXT NOT NULL, atype INTEGER NOT NULL, push_token TEXT, refresh_token TEXT NOT NULL, twofactor_remember TEXT, push_uuid TEXT, PRIMARY KEY (uuid, user_uuid));
CREATE TABLE folders (uuid TEXT NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, user_uuid TEXT NOT NULL REFERENCES users (uuid), name TEXT NOT NULL);
CREATE TABLE folders_ciphers (cipher_uuid TEXT NOT NULL REFERENCES ciphers (uuid), folder_uuid TEXT NOT NULL REFERENCES folders (uuid), PRIMARY KEY (cipher_uuid, folder_uuid));
CREATE TABLE invitations (email TEXT NOT NULL PRIMARY KEY);
CREATE TABLE organizations (uuid VARCHAR(40) NOT NULL PRIMARY KEY, name TEXT NOT NULL, billing_email TEXT NOT NULL, private_key TEXT, public_key TEXT);
CREATE TABLE users (uuid TEXT NOT NULL PRIMARY KEY, enabled BOOLEAN NOT NULL DEFAULT 1, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, verified_at DATETIME DEFAULT NULL, last_verifying_at DATETIME DEFAULT NULL, login_verify_count INTEGER NOT NULL DEFAULT 0, email TEXT NOT NULL UNIQUE, email_new TEXT DEFAULT NULL, name TEXT NOT NULL, password_hash BLOB NOT NULL, salt BLOB NOT NULL, password_iterations INTEGER NOT NULL, password_hint TEXT, akey TEXT NOT NULL, private_key TEXT, public_key TEXT, totp_secret TEXT, security_stamp TEXT NOT NULL, equivalent_domains TEXT NOT NULL, excluded_globals TEXT NOT NULL, client_kdf_type INTEGER NOT NULL DEFAULT 0, client_kdf_iter INTEGER NOT NULL DEFAULT 100000, api_key TEXT, avatar_color VARCHAR(7));
CREATE TABLE users_organizations (uuid TEXT NOT NULL PRIMARY KEY, user_uuid TEXT NOT NULL REFERENCES users (uuid), org_uuid TEXT NOT NULL REFERENCES organizations (uuid), access_all BOOLEAN NOT NULL, akey TEXT NOT NULL, status INTEGER NOT NULL, atype INTEGER NOT NULL, UNIQUE (user_uuid, org_uuid));
INSERT INTO __diesel_schema_migrations VALUES ('20180114171611', '2026-01-01 00:00:00'), ('20180217205753', '2026-01-01 00:00:00');
INSERT INTO invitations VALUES ('new@example.org');
INSERT INTO organizations VALUES ('0b2cbb4e-1d2d-4f33-8f0e-111111111111', 'Family', 'bills@example.org', NULL, 'pub');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
    INSERT INTO users SELECT printf('%08d-0000-4000-8000-000000000000', i), i % 9 > 0, '2026-01-01 10:00:00.123456789', '2026-02-01 10:00:00', CASE WHEN i % 2 THEN '2026-01-02 03:04:05' END, NULL, 0,
        'user' || i || '@example.org', NULL, 'Name ' || i, randomblob(32), randomblob(64), 600000, CASE WHEN i % 3 THEN 'a hint' END, '2.key|' || i, NULL, NULL, NULL,
        printf('%08d-0000-4000-8000-00000000000a', i), '[]', '[2,3]', 0, 600000, NULL, CASE WHEN i % 4 = 0 THEN '#ff00aa' END FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 987)
    INSERT INTO ciphers SELECT printf('%08d-0000-4000-9000-000000000000', i), '2026-03-01 10:00:00', '2026-03-01 10:00:00.5', CASE WHEN i % 10 THEN printf('%08d-0000-4000-8000-000000000000', i % 50 + 1) END,
        CASE WHEN i % 10 = 0 THEN '0b2cbb4e-1d2d-4f33-8f0e-111111111111' END, 1, '2.name|' || i, NULL, '[]', '{"uri":"2.x","username":null}', NULL, CASE WHEN i % 100 = 0 THEN '2026-04-01 00:00:00' END, 0, NULL FROM n;
INSERT INTO attachments SELECT 'att' || substr(uuid, 1, 8), uuid, '2.file', 3000000000, 'k' FROM ciphers WHERE uuid LIKE '%7-0000%';
INSERT INTO devices SELECT printf('%s', replace(uuid, '-8000-', '-a000-')), created_at, updated_at, uuid, 'firefox', 10, NULL, 'token', NULL, NULL FROM users;
INSERT INTO folders SELECT replace(uuid, '-8000-', '-b000-'), created_at, updated_at, uuid, 'Folder' FROM users;
INSERT INTO folders_ciphers SELECT uuid, replace(user_uuid, '-8000-', '-b000-') FROM ciphers WHERE user_uuid IS NOT NULL;
INSERT INTO users_organizations SELECT replace(uuid, '-8000-', '-c000-'), uuid, '0b2cbb4e-1d2d-4f33-8f0e-111111111111', 1, 'k', 2, 0 FROM users;
