-- A schema with what dumps must bring back: keys that refer to others, sequences, names that need quotes, comments.
create schema app;
create table app.customer(id bigserial primary key, email varchar(100) not null unique, created timestamptz default '2020-01-01 00:00:00+00', balance numeric(12,2) default 0 check (balance >= 0));
create table app."order"(id int generated always as identity primary key, customer_id bigint not null references app.customer on delete cascade, placed date default '2020-02-03', note text default 'it''s');
create table item(order_id int references app."order" on update cascade on delete cascade, line int, sku text not null, qty int check (qty > 0), price numeric, primary key (order_id, line));
create table tree(id int primary key, parent int references tree deferrable initially deferred, tags text[], payload bytea, flag boolean default true);
create index item_sku on item(sku desc nulls last, qty);
create unique index customer_lower on app.customer(created, email);
comment on table item is 'lines'; comment on column item.sku is 'stock';
insert into app.customer(email,balance) values ('a@x', 1.50),('b@x', 2);
insert into app."order"(customer_id) values (1),(2),(1);
insert into item values (1,1,'s1',3,1.25),(1,2,E'tab\there',1,null),(2,1,'s2',5,9.99);
insert into tree values (2,1,'{a,"b c"}',E'\\x00ff',false),(1,null,null,null,true);
create sequence lone increment 5 start 11; select nextval('lone');
