-- Beside rich.sql, on servers that have contrib: trusted extensions, which the owner of a database may create.
CREATE EXTENSION citext WITH SCHEMA public;
CREATE EXTENSION hstore WITH SCHEMA shop;
CREATE EXTENSION pg_trgm;
CREATE EXTENSION btree_gist;
CREATE TABLE shop.extended (
    name public.citext PRIMARY KEY,
    pairs shop.hstore,
    room integer,
    during pg_catalog.tstzrange,
    EXCLUDE USING gist (room WITH =, during WITH &&)
);
CREATE INDEX extended_name ON shop.extended USING gin ((name::text) public.gin_trgm_ops);
INSERT INTO shop.extended VALUES
    ('Ada', 'a=>1, "b;c"=>NULL', 1, '[2024-01-01 UTC,2024-02-01 UTC)'),
    ('größe', NULL, 1, '[2024-02-01 UTC,2024-03-01 UTC)'),
    ('nil', '', 2, NULL);
