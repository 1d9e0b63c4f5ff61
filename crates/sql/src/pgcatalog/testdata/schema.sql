-- The objects that the tests of the system catalogs describe.
CREATE TABLE accounts (id integer PRIMARY KEY, owner varchar(40) NOT NULL, balance numeric(12,2) DEFAULT 0, note text, opened timestamptz DEFAULT now(), code char(3), email text UNIQUE);
CREATE INDEX accounts_owner_idx ON accounts (owner, balance DESC);
CREATE UNIQUE INDEX accounts_code_key2 ON accounts (code NULLS FIRST);
CREATE TABLE branches (bid bigint NOT NULL, "Name" text, flag boolean DEFAULT false, d date, payload bytea, u uuid, PRIMARY KEY (bid, "Name")) WITH (fillfactor=100);
CREATE TABLE history (tid int, at timestamp(3), span interval, r real, f double precision, s smallint, t time, tags text[], n numeric);
CREATE SCHEMA app;
CREATE TABLE app.items (id uuid PRIMARY KEY, title text DEFAULT 'none'::text);
COMMENT ON TABLE accounts IS 'all accounts';
COMMENT ON COLUMN accounts.owner IS 'who owns it';
