-- The demo's database once its rows are loaded: keys, indexes, views and what reacts to changes.

ALTER TABLE public.customers ADD PRIMARY KEY (id), ADD UNIQUE (email);
ALTER TABLE sales.orders ADD PRIMARY KEY (id), ADD CHECK (total >= 0);
ALTER TABLE sales.orders ADD FOREIGN KEY (customer_id) REFERENCES public.customers;
ALTER TABLE sales.order_history ADD PRIMARY KEY (id);
ALTER TABLE archive.documents ADD PRIMARY KEY (id);
ALTER TABLE archive.documents ADD FOREIGN KEY (customer_id) REFERENCES public.customers;
ALTER TABLE archive.events ADD PRIMARY KEY (id, at);
ALTER TABLE "Büro"."Öffnungszeiten" ADD PRIMARY KEY ("Tag");

CREATE INDEX orders_by_customer ON sales.orders (customer_id, placed_at);
CREATE INDEX unsent_orders ON sales.orders (placed_at) WHERE state IN ('placed', 'paid');
CREATE INDEX customers_by_search_name ON public.customers (search_name text_pattern_ops);
CREATE INDEX documents_by_title ON archive.documents (title);
CREATE INDEX events_by_content ON archive.events_2025 USING gin (content jsonb_path_ops);

CREATE FUNCTION sales.note_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sales.order_history (order_id, was, became) VALUES (OLD.id, OLD.state, NEW.state);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_state AFTER UPDATE OF state ON sales.orders
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION sales.note_state();

CREATE VIEW sales.turnover AS
    SELECT (home).city, count(*) AS orders, sum(total) AS total
    FROM sales.orders JOIN public.customers ON customers.id = customer_id GROUP BY 1;
CREATE MATERIALIZED VIEW archive.events_by_kind AS SELECT kind, count(*) AS events FROM archive.events GROUP BY kind;

ANALYZE;
