-- Tables like those of TPC-H, with rows that are computed from their numbers: the same on every server. `scale` is a
-- thousandth of TPC-H's scale factor: 100 gives 600,000 line items. Distributions are simpler than TPC-H's, and its
-- figures cannot be compared with these.
create table region (r_regionkey int primary key, r_name char(25) not null, r_comment varchar(152));
create table nation (n_nationkey int primary key, n_name char(25) not null, n_regionkey int not null, n_comment varchar(152));
create table supplier (s_suppkey int primary key, s_name char(25) not null, s_address varchar(40) not null, s_nationkey int not null,
  s_phone char(15) not null, s_acctbal numeric(15, 2) not null, s_comment varchar(101) not null);
create table customer (c_custkey int primary key, c_name varchar(25) not null, c_address varchar(40) not null, c_nationkey int not null,
  c_phone char(15) not null, c_acctbal numeric(15, 2) not null, c_mktsegment char(10) not null, c_comment varchar(117) not null);
create table part (p_partkey int primary key, p_name varchar(55) not null, p_mfgr char(25) not null, p_brand char(10) not null,
  p_type varchar(25) not null, p_size int not null, p_container char(10) not null, p_retailprice numeric(15, 2) not null, p_comment varchar(23) not null);
create table partsupp (ps_partkey int, ps_suppkey int, ps_availqty int not null, ps_supplycost numeric(15, 2) not null,
  ps_comment varchar(199) not null, primary key (ps_partkey, ps_suppkey));
create table orders (o_orderkey int primary key, o_custkey int not null, o_orderstatus char(1) not null, o_totalprice numeric(15, 2) not null,
  o_orderdate date not null, o_orderpriority char(15) not null, o_clerk char(15) not null, o_shippriority int not null, o_comment varchar(79) not null);
create table lineitem (l_orderkey int, l_partkey int not null, l_suppkey int not null, l_linenumber int, l_quantity numeric(15, 2) not null,
  l_extendedprice numeric(15, 2) not null, l_discount numeric(15, 2) not null, l_tax numeric(15, 2) not null, l_returnflag char(1) not null,
  l_linestatus char(1) not null, l_shipdate date not null, l_commitdate date not null, l_receiptdate date not null,
  l_shipinstruct char(25) not null, l_shipmode char(10) not null, l_comment varchar(44) not null, primary key (l_orderkey, l_linenumber));

insert into region select i, (array['AFRICA', 'AMERICA', 'ASIA', 'EUROPE', 'MIDDLE EAST'])[i + 1], 'region ' || i from generate_series(0, 4) as g(i);
insert into nation select i, (array['ALGERIA', 'ARGENTINA', 'BRAZIL', 'CANADA', 'EGYPT', 'ETHIOPIA', 'FRANCE', 'GERMANY', 'INDIA', 'INDONESIA',
  'IRAN', 'IRAQ', 'JAPAN', 'JORDAN', 'KENYA', 'MOROCCO', 'MOZAMBIQUE', 'PERU', 'CHINA', 'ROMANIA', 'SAUDI ARABIA', 'VIETNAM', 'RUSSIA',
  'UNITED KINGDOM', 'UNITED STATES'])[i + 1],
  (array[0, 1, 1, 1, 4, 0, 3, 3, 2, 2, 4, 4, 2, 4, 0, 0, 0, 1, 2, 3, 4, 2, 3, 3, 1])[i + 1], 'nation ' || i from generate_series(0, 24) as g(i);
insert into supplier select i, 'Supplier#' || lpad(i::text, 9, '0'), 'address ' || i, i * 7919 % 25,
  (10 + i * 7919 % 25) || '-' || lpad((i * 31 % 1000)::text, 3, '0') || '-' || lpad((i * 37 % 10000)::text, 4, '0'),
  (i * 104729 % 1099999 - 99999) / 100.0,
  case i * 13 % 200 when 0 then 'slow Customer with many Complaints' else 'comment of a supplier ' || i end
  from generate_series(1, 10 * :scale) as g(i);
insert into customer select i, 'Customer#' || lpad(i::text, 9, '0'), 'address ' || i, i * 6791 % 25,
  (10 + i * 6791 % 25) || '-' || lpad((i * 29 % 1000)::text, 3, '0') || '-' || lpad((i * 41 % 10000)::text, 4, '0'),
  (i::bigint * 130531 % 1099999 - 99999) / 100.0,
  (array['AUTOMOBILE', 'BUILDING', 'FURNITURE', 'MACHINERY', 'HOUSEHOLD'])[i * 17 / 7 % 5 + 1], 'comment of a customer ' || i * 97 % 10007
  from generate_series(1, 150 * :scale) as g(i);
insert into part select i,
  (array['almond', 'antique', 'aquamarine', 'azure', 'beige', 'bisque', 'black', 'blue', 'forest', 'green'])[h % 10 + 1] || ' ' ||
  (array['chocolate', 'coral', 'cream', 'dark', 'dim', 'floral', 'forest', 'frosted', 'ghost', 'goldenrod', 'green'])[h / 11 % 11 + 1],
  'Manufacturer#' || h / 13 % 5 + 1, 'Brand#' || (h / 13 % 5 + 1) || (h / 17 % 5 + 1),
  (array['STANDARD', 'SMALL', 'MEDIUM', 'LARGE', 'ECONOMY', 'PROMO'])[h / 19 % 6 + 1] || ' ' ||
  (array['ANODIZED', 'BURNISHED', 'PLATED', 'POLISHED', 'BRUSHED'])[h / 23 % 5 + 1] || ' ' ||
  (array['TIN', 'NICKEL', 'BRASS', 'STEEL', 'COPPER'])[h / 29 % 5 + 1], h / 31 % 50 + 1,
  (array['SM', 'LG', 'MED', 'JUMBO', 'WRAP'])[h / 37 % 5 + 1] || ' ' || (array['CASE', 'BOX', 'BAG', 'JAR', 'PKG', 'PACK', 'CAN', 'DRUM'])[h / 41 % 8 + 1],
  (90000 + i / 10 % 20001 + 100 * (i % 1000)) / 100.0, 'comment ' || i % 1000
  from (select i, i * 2654435761 % 4294967291 / 17 as h from generate_series(1, 200 * :scale) as g(i)) as computed;
insert into partsupp select p, (p + j * (10 * :scale / 4) + (p - 1) / (10 * :scale)) % (10 * :scale) + 1, (p * 7 + j * 1009) % 9999 + 1,
  ((p::bigint * 104729 + j * 7919) % 99901 + 100) / 100.0, 'comment of an offer ' || p % 1013
  from generate_series(1, 200 * :scale) as g(p), generate_series(0, 3) as h(j);
insert into orders select i, i::bigint * 7919 % (150 * :scale) / 3 * 3 % (150 * :scale) + 1, 'O', 0,
  date '1992-01-01' + (i::bigint * 104729 % 2405)::int, (array['1-URGENT', '2-HIGH', '3-MEDIUM', '4-NOT SPECIFIED', '5-LOW'])[i * 7 / 3 % 5 + 1],
  'Clerk#' || lpad((i * 31::bigint % (:scale + 1))::text, 9, '0'), 0,
  case i * 53::bigint % 100 when 0 then 'some special packages with requests' else 'comment of an order ' || i % 1009 end
  from generate_series(1, 1500 * :scale) as g(i);
insert into lineitem select o, p, (p + l % 4 * (10 * :scale / 4) + (p - 1) / (10 * :scale)) % (10 * :scale) + 1, l, q, q * (90000 + p / 10 % 20001 + 100 * (p % 1000)) / 100.0,
  (h % 11) / 100.0, (h / 11 % 9) / 100.0,
  case when shipped + 10 > date '1995-06-17' then 'N' when h % 2 = 0 then 'R' else 'A' end,
  case when shipped > date '1995-06-17' then 'O' else 'F' end, shipped, ordered + 30 + (h / 7 % 61)::int, shipped + 1 + (h / 13 % 30)::int,
  (array['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'])[h / 17 % 4 + 1],
  (array['REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB'])[h / 19 % 7 + 1], 'comment ' || h % 1021
  from (select o, l, h, (h % (200 * :scale) + 1)::int as p, (h / 3 % 50 + 1)::int as q, ordered, ordered + 1 + (h / 5 % 121)::int as shipped
    from (select o_orderkey as o, l, (o_orderkey * 7::bigint + l) * 2654435761 % 4294967291 / 17 as h, o_orderdate as ordered
      from orders, generate_series(1, 7) as g(l) where l <= o_orderkey * 5 / 3 % 7 + 1) as numbered) as computed;
update orders set o_totalprice = total, o_orderstatus = status
  from (select l_orderkey, sum(l_extendedprice * (1 + l_tax) * (1 - l_discount)) as total,
    case when min(l_linestatus) = max(l_linestatus) then min(l_linestatus) else 'P' end as status from lineitem group by l_orderkey) as sums
  where l_orderkey = o_orderkey;
create index on lineitem (l_partkey, l_suppkey);
create index on lineitem (l_shipdate);
create index on orders (o_custkey);
create index on orders (o_orderdate);
create index on partsupp (ps_suppkey);
create index on customer (c_nationkey);
create index on supplier (s_nationkey);
analyze;
