-- Beside rich.sql and rich_extensions.sql: what only a superuser may create.
CREATE EXTENSION pg_stat_statements;
CREATE FUNCTION shop.seen() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER "seen; all" ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION shop.seen();
ALTER EVENT TRIGGER "seen; all" ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER "seen; all" IS 'comment on an event trigger';
CREATE PUBLICATION every_table FOR ALL TABLES;
COMMENT ON PUBLICATION every_table IS 'comment on a publication';
