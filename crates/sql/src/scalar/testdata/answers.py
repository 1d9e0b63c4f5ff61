#!/usr/bin/env python3
"""Writes cases.txt: expressions with the answers of a running PostgreSQL 15.

    answers.py 'psql -h 127.0.0.1 -p 15990 -U postgres' > cases.txt

One case a line, tab-separated: kind, name, arguments, `=`, answer. Kinds: `op` (one or two operands),
`fn`, `cast` (name = target type). An argument is `type:literal`, an untyped `'literal`, NULL, or a number.
The answer is `type: text`, `type: NULL`, or a SQLSTATE. Server settings: UTC, ISO dates, style postgres.
"""
import itertools, subprocess, sys

NUMBERS = {
    'int2': ['7', '-3', '32767'], 'int4': ['7', '-2', '2147483647'], 'int8': ['7', '9223372036854775807'],
    'numeric': ['7', '-2.50', '0.001', '123456789012345678901234.5', 'NaN', 'Infinity'],
    'float4': ['7', '-2.5', '3e38'], 'float8': ['7', '-2.5', '1e300', 'NaN', 'Infinity'],
}
OTHERS = {
    'date': ['2024-02-29', '0044-03-15 BC', 'infinity'], 'time': ['23:59:59.5', '01:00'],
    'timestamp': ['2024-02-29 12:34:56.789', '1999-12-31 23:59:59', '-infinity'],
    'timestamptz': ['2024-07-01 12:00:00+02', '2024-03-31 00:30:00+00'],
    'interval': ['1 year 2 mons 3 days 04:05:06.7', '-1 day', '36:00:00', '1 mon'],
    'text': ['abc', '', 'aBc'], 'varchar': ['abc'], 'char(5)': ['abc'], 'name': ['abc'], '"char"': ['a'],
    'bool': ['t', 'f'], 'bytea': ['\\x0102', 'a%'], 'uuid': ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'], 'oid': ['7'],
    'int4[]': ['{1,2}', '{}', '{{1,2},{3,4}}', '{1,NULL}'], 'text[]': ['{a,b}', '{"x y",NULL}'],
}
ALL = {**NUMBERS, **OTHERS}
cases = []
def add(kind, name, *args): cases.append((kind, name, list(args)))
def typed(t, v): return f'{t}:{v}'

for op in ['+', '-', '*', '/', '%', '=', '<']:
    for (a, va), (b, vb) in itertools.product(NUMBERS.items(), NUMBERS.items()):
        for x, y in itertools.product(va, vb):
            if len(va) * len(vb) <= 9 or (x == va[0]) or (y == vb[0]) or (x == va[-1] and y == vb[-1]):
                add('op', op, typed(a, x), typed(b, y))
for op in ['/', '%']:
    for t in NUMBERS: add('op', op, typed(t, '5'), typed(t, '0'))
for t in NUMBERS:
    for op in ['-', '+', '@', '~', '|/', '||/']:
        for v in NUMBERS[t]: add('op', op, typed(t, v))
for t in ['int2', 'int4', 'int8']:
    for op in ['&', '|', '#', '<<', '>>']: add('op', op, typed(t, '13'), 'int4:3'); add('op', op, typed(t, '13'), "'3")
for a, b in itertools.product(['2', '2.0', '-2', '-2.0', '0', '0.0', '10.5', 'float8:2', 'numeric:1.0000001', 'numeric:0.05', 'numeric:123456'], ['3', '-3', '0', '0.5', '2.5', '-1.5', 'float8:0.5', 'numeric:100', 'numeric:-7']):
    add('op', '^', a, b); add('fn', 'power', a, b)
for op in ['+', '-', '*', '/', '=', '<', '||']:
    for a, b in itertools.product(['date', 'time', 'timestamp', 'timestamptz', 'interval', 'int4', 'float8', 'text'], repeat=2):
        if a in ('int4', 'float8', 'text') and b in ('int4', 'float8', 'text') and op != '||': continue
        for x in ALL[a][:2]:
            for y in ALL[b][:2]: add('op', op, typed(a, x), typed(b, y))
for op in ['+', '-', '*', '/', '%', '=', '<>', '<', '||', '~', '~~', '&', '@>', '&&']:
    for t in ALL:
        for lit in ["'1", "'abc", "'{1}", "'1 day", 'NULL']:
            add('op', op, typed(t, ALL[t][0]), lit)
        add('op', op, "'1", typed(t, ALL[t][0]))
for a, b in itertools.product(OTHERS, OTHERS):
    add('op', '=', typed(a, OTHERS[a][0]), typed(b, OTHERS[b][0])); add('op', '||', typed(a, OTHERS[a][0]), typed(b, OTHERS[b][-1]))
for a, b in itertools.product(OTHERS['interval'], ['0.5', '3', '-1.7', 'float8:0.1']):
    add('op', '*', typed('interval', a), b); add('op', '/', typed('interval', a), b)
for d in ['10.0', '1', '7', '0.003', '12345.678', '1e20', '99999', '0.9999']:
    for e in ['3', '7.00', '0.07', '1e10', '123456789', '9999.5']:
        add('op', '/', typed('numeric', d), typed('numeric', e)); add('op', '%', typed('numeric', d), typed('numeric', e)); add('op', '*', typed('numeric', d), typed('numeric', e))
        add('fn', 'div', typed('numeric', d), typed('numeric', e))
for f in ['sqrt', 'exp', 'ln', 'log', 'abs', 'ceil', 'floor', 'round', 'trunc', 'sign', 'scale', 'min_scale', 'trim_scale', 'cbrt', 'degrees', 'radians', 'sin', 'cos', 'tan', 'atan']:
    for v in ['numeric:2', 'numeric:0.0001', 'numeric:1234567.891', 'numeric:1', 'numeric:0.5', 'numeric:-1.5', 'numeric:2.50', 'numeric:99.5', 'numeric:0', 'float8:2.5', 'float8:-0.5', 'float8:3.5', 'float8:1e10', 'float8:0', 'int4:2', 'int4:-7', 'int8:100', 'float4:1.5', "'4", 'numeric:NaN', 'numeric:Infinity']:
        add('fn', f, v)
for d in ['1234.5678', '-1234.5678', '0.5', '99.995', '1e15']:
    for n in ['0', '2', '-2', '5', '-5']: add('fn', 'round', typed('numeric', d), n); add('fn', 'trunc', typed('numeric', d), n)
for base, v in itertools.product(['2', '10', '0.5', '1.5', '100', '1'], ['8', '3', '1000.0', '0.01']): add('fn', 'log', typed('numeric', base), typed('numeric', v))
for v in ['1000', '0.001', '100', '12345', '2.5', '1e10', '0']: add('fn', 'log', typed('numeric', v)); add('fn', 'ln', typed('numeric', v)); add('fn', 'sqrt', typed('numeric', v)); add('fn', 'exp', typed('numeric', v if v not in ('1e10', '12345') else '-3.7'))
for a, b in [('12', '18'), ('0', '5'), ('-12', '8'), ('int8:12', '8'), ('numeric:1.5', 'numeric:0.25')]: add('fn', 'gcd', a, b); add('fn', 'lcm', a, b)
for n in ['0', '5', '20', '30', '-1']: add('fn', 'factorial', n)
for args in [('5.35', '0.024', '10.06', '5'), ('float8:5', 'float8:0', 'float8:10', '4'), ('1', '10', '0', '3'), ('20', '0', '10', '5'), ('5', '0', '0', '5'), ('5', '0', '10', '0')]: add('fn', 'width_bucket', *args)
for n in ['255', '-1', 'int8:4294967296', 'int8:-1']: add('fn', 'to_hex', n)

INPUTS = {
    'bool': ['t', 'tr', 'true', 'yes', 'on', '1', 'of', 'off', 'o', ' f ', '', '2', 'TRUE'],
    'int2': ['1', ' 7 ', '+5', '-32768', '32768', '1.0', '', 'x', '--1', '0x10', '1 2'],
    'int4': ['2147483648', '-2147483648', '00012', ' 1', '1e3'], 'int8': ['9223372036854775808', '-9223372036854775808', '1_000'],
    'float4': ['1e39', '1e-46', '3.4028235e38', '0.1', '1e-5', '123456.7', '1234567', 'nan', '-inf', ' 1.5 ', '1.5x', '16777216', '0.3333333333'],
    'float8': ['1e309', '1e-400', '0.1', '1e15', '1e16', '123456789012345678', '0.0001', '0.00001234', '-0', 'Infinity', '+inf', '1e+5', '.5', '5.', 'e5', '1.7976931348623157e308', '4.9e-324', '0x1p3', ''],
    'numeric': ['1', '-1.50', '+.5', '5.', '.', '1e5', '1e-5', '1.5E3', 'NaN', ' nan ', 'inf', '-infinity', '1e', '1ee5', '1.2.3', '000.000', '-0.00', '1e1000', '1e200000', ' 12 ', '1 2', '--1', '0e10', '1e-20000'],
    'numeric(5,2)': ['123.456', '999.994', '999.995', '-999.999', '1000', 'NaN', 'inf', '0.001'], 'numeric(3,-2)': ['12345', '99950', '49'], 'numeric(2,4)': ['0.0099', '0.01', '0.00994'], 'numeric(4)': ['1.5', '9999.5'],
    'varchar(3)': ['abc', 'abcd', 'ab   ', 'abc  ', 'äöü'], 'char(3)': ['a', 'abcd', 'abc   ', ''], 'text': ['', 'x'], '"char"': ['abc', '', 'z'], 'name': ['abc', 'x' * 70],
    'bytea': ['abc', '\\x', '\\x0A0b', '\\xa', '\\xzz', '\\001\\\\', '\\9', '\\x 01 02'],
    'date': ['2024-02-29', '2023-02-29', '2024-13-01', '2024-1-5', '1/8/1999', '13/1/1999', 'January 8, 1999', '8 Jan 1999', '1999-Jan-08', 'Jan-08-1999', '08-Jan-99', '19990108', '990108', '1999.008', '2024-02-29 BC', '0001-01-01 BC', '0000-01-01', '4714-11-24 BC', '4714-11-23 BC', '5874897-12-31', '5874898-01-01', 'epoch', 'infinity', '-infinity', 'hello', '', '2024-02-30 12:00', '2024-02-28 12:00:00', '99-01-05', '1999-1', 'J2451187', '10000-01-01', '2024-06', 'Mon Jan 8 1999', '2024-02-29T10:00:00Z'],
    'time': ['04:05:06.789', '04:05:06', '04:05', '040506', '04:05 AM', '04:05 PM', '12:00 AM', '12:30 PM', '13:00 PM', '24:00:00', '24:00:01', '25:00', '04:60', '04:05:60', '04:05:61', '2003-04-12 04:05:06', 'allballs', '04:05:06.1234567', '23:59:59.9999999', 'x', '', '04:05:06 PST', '4:5:6'],
    'time(2)': ['04:05:06.789', '23:59:59.999'],
    'timestamp': ['2024-02-29 12:34:56', '2024-02-29T12:34:56.789Z', '2024-02-29 24:00:00', '2024-02-29', '2024-02-29 12:34:56+05', 'Feb 29 2024 3:04PM', '20240229T123456', '2024-02-29 12:34:56.1234567', '1999-01-08 04:05:06 -8:00', '294276-12-31 23:59:59.999999', '294277-01-01', '4713-01-01 00:00:00 BC', '2024-02-29 25:00', 'infinity', '-infinity', 'epoch', 'garbage', '2024-02-29 12:34:56 America/New_York', '2024-02-29 12:34:56 Nowhere/City', 'Thu Feb 29 12:34:56 2024', '2024-02-29 12', '2024-02-29 12:34:56 foo'],
    'timestamp(0)': ['2024-02-29 12:34:56.5', '2024-02-29 12:34:56.499999'], 'timestamp(3)': ['2024-02-29 12:34:56.7894'],
    'timestamptz': ['2024-02-29 12:34:56', '2024-02-29 12:34:56+05', '2024-02-29 12:34:56+05:30', '2024-02-29 12:34:56-0330', '2024-07-01 12:00 America/New_York', '2024-07-01 12:00 EST', '2024-07-01 12:00 PST8PDT', '2024-03-10 02:30 America/New_York', '2024-11-03 01:30 America/New_York', '2024-07-01 12:00Z', 'infinity', '2024-07-01 12:00 UTC', '2024-07-01 12:00 GMT+3', '2024-07-01 12:00+16', '2024-07-01 12:00 Nowhere/X'],
    'interval': ['1 day', '1 year 2 months 3 days 4 hours 5 minutes 6.5 seconds', '1-2', '-1-2', '3 4:05:06', '1-2 3 4:05:06', 'P1Y2M3DT4H5M6S', 'P0001-02-03T04:05:06', 'PT36H', '1.5 years', '1.5 months', '1.5 weeks', '1.5 days', '0.1 months', '1 day ago', '-1 day 02:03', '@ 1 minute', '04:05', '04:05:06.789', '1 week', '1 decade', '1 century', '1 millennium', '100 ms', '5', '5.5', 'x', '', '1 fortnight', '1 day 1 day', '178000000 years', '999999999999 hours', '1y 2mon 3d 4h 5m 6s', '-00:00:01', '1:60', '100:00:00', '1 mon -1 day', '2 h 3 us', '1 day -00:00:01', '- 1 day', '+1 day', '1 years -1 mons +2 days -03:04:05'],
    'interval(2)': ['1.239 seconds'],
    'uuid': ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}', 'a0eebc999c0b4ef8bb6d6bb9bd380a11', 'a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1', 'x'],
    'oid': ['1', '-1', '4294967295', '4294967296', 'x', ''],
    'int4[]': ['{}', '{1,2}', ' { 1 , 2 } ', '{1,{2}}', '{{1},{2}}', '{{1},{2,3}}', '[0:1]={1,2}', '[2:2][1:2]={{1,2}}', '{1,null}', '{1,"2"}', '{', '}', '{1', '{1}}', '1', '{1,}', '{,1}', '{{}}', '{{},{}}', '{x}'],
    'text[]': ['{a,b}', '{"a,b",c}', '{a b, c }', '{"\\"q\\"", \\\\}', '{NULL,"NULL",null}', '{""}', '{"{}"}', '{a"b"}'],
    'int2vector': ['1 2 3', '', '1'], 'oidvector': ['1 2'],
    'pg_lsn': ['0/0', '16/B374D848', 'FFFFFFFF/FFFFFFFF', 'x', '1/'],
}
for t, values in INPUTS.items():
    for v in values: add('cast', t, "'" + v)
TARGETS = ['bool', 'int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'numeric(5,1)', 'text', 'varchar(2)', 'char(6)', 'name', '"char"', 'bytea', 'date', 'time', 'timestamp', 'timestamp(1)', 'timestamptz', 'interval', 'uuid', 'oid', 'regtype', 'int4[]', 'text[]', 'int8[]']
for t, values in ALL.items():
    for target in TARGETS:
        for v in values: add('cast', target, typed(t, v))
for v in ['0.5', '1.5', '2.5', '-0.5', '-1.5', '1e10', '32767.4', '32767.5', '-32768.5']:
    for s in ['float8', 'numeric', 'float4']:
        for t in ['int2', 'int4', 'int8']: add('cast', t, typed(s, v))
for v in ['1e20', '0.1', '123456789.123', '1e-7', '-1.5e-10', '3.14159265358979']:
    for s in ['float8', 'float4']:
        for t in ['numeric', 'float4', 'text']: add('cast', t, typed(s, v))

S = [
 ('length', "'héllo"), ('length', 'char(6):ab'), ('length', "bytea:\\x010203"), ('char_length', "'abc"), ('octet_length', "'hé"), ('bit_length', "'hé"), ('lower', "'HÉllo"), ('upper', "'héllo"), ('initcap', "'hi THOMAS o''reilly x9y"),
 ('substr', "'hello", '2'), ('substr', "'hello", '2', '3'), ('substr', "'hello", '0', '3'), ('substr', "'hello", '-3', '5'), ('substr', "'hello", '2', '-1'), ('substr', "'hello", '10'), ('substring', "'foobar", "'o.b"), ('substring', "'foobar", "'o(.)b"), ('substring', "'foobar", "'x"), ('substring', 'bytea:\\x01020304', '2', '2'),
 ('btrim', "'  a  "), ('btrim', "'xyxtrimyyx", "'xyz"), ('ltrim', "'zzzytest", "'xyz"), ('rtrim', "'testxxzx", "'xyz"), ('strpos', "'high", "'ig"), ('strpos', "'high", "'"), ('strpos', "'high", "'z"), ('position', "'high", "'ig"),
 ('replace', "'abcdefabcdef", "'cd", "'XX"), ('replace', "'abc", "'", "'x"), ('split_part', "'abc~@~def~@~ghi", "'~@~", '2'), ('split_part', "'a,b,c", "',", '-1'), ('split_part', "'a,b", "',", '0'), ('split_part', "'a,b", "',", '5'), ('split_part', "'a,b", "'", '1'), ('split_part', "'a,b", "'", '-1'),
 ('left', "'abcde", '2'), ('left', "'abcde", '-2'), ('left', "'abc", '-9'), ('right', "'abcde", '2'), ('right', "'abcde", '-2'), ('lpad', "'hi", '5', "'xy"), ('lpad', "'hello", '2'), ('rpad', "'hi", '5', "'xy"), ('rpad', "'hi", '5'), ('lpad', "'hi", '-1'), ('lpad', "'hi", '5', "'"), ('repeat', "'Pg", '4'), ('repeat', "'Pg", '-1'), ('reverse', "'abcde"),
 ('concat', "'abcde", '2', 'NULL', '22'), ('concat', 'bool:t', '1.50', 'date:2024-01-01'), ('concat_ws', "',", "'abcde", '2', 'NULL', '22'), ('concat_ws', 'NULL', "'a"),
 ('format', "'Hello %s, %1$s", "'World"), ('format', "'%s|%10s|%-10s|", "'a", "'b", "'c"), ('format', "'%I.%L", "'Foo bar", "'O'R"), ('format', "'%%"), ('format', "'%s"), ('format', "'%x", "'a"), ('format', "'%L", 'NULL'), ('format', "'%I", 'NULL'), ('format', "'%s", 'NULL'), ('format', "'%2$s %1$s", '1', '2'), ('format', "'%*s", '10', "'foo"),
 ('quote_ident', "'Foo bar"), ('quote_ident', "'foo"), ('quote_ident', "'select"), ('quote_ident', "'a\"b"), ('quote_ident', "'integer"), ('quote_ident', "'name"), ('quote_ident', "'1a"), ('quote_ident', "'"), ('quote_literal', "'O''Reilly\\"), ('quote_literal', '42.5'), ('quote_literal', "'plain"), ('quote_nullable', 'NULL'), ('quote_nullable', '42'),
 ('md5', "'abc"), ('md5', "'"), ('md5', 'bytea:\\x00'), ('sha256', 'bytea:abc'), ('sha224', 'bytea:abc'), ('sha384', 'bytea:abc'), ('sha512', 'bytea:abc'),
 ('encode', 'bytea:\\x1234ff', "'hex"), ('encode', 'bytea:\\x1234ff', "'base64"), ('encode', 'bytea:\\x12345cff41', "'escape"), ('encode', 'bytea:\\x00', "'nope"), ('decode', "'1234ff", "'hex"), ('decode', "'EjT/", "'base64"), ('decode', "'a\\\\001", "'escape"), ('decode', "'12g4", "'hex"), ('decode', "'123", "'hex"), ('decode', "'###", "'base64"), ('encode', 'bytea:' + 'x' * 80, "'base64"),
 ('ascii', "'x"), ('ascii', "'"), ('ascii', "'é"), ('chr', '65'), ('chr', '0'), ('chr', '233'), ('chr', '-1'), ('translate', "'12345", "'143", "'ax"), ('overlay', "'Txxxxas", "'hom", '2', '4'), ('overlay', "'abcdef", "'XY", '3'),
 ('regexp_replace', "'foobarbaz", "'b..", "'X"), ('regexp_replace', "'foobarbaz", "'b..", "'X", "'g"), ('regexp_replace', "'foobarbaz", "'b(..)", "'X\\1Y", "'g"), ('regexp_replace', "'abc", "'B", "'[\\&]", "'i"), ('regexp_replace', "'abc", "'(", "'"), ('regexp_replace', "'A PostgreSQL function", "'a|e|i|o|u", "'X", '1', '0', "'i"), ('regexp_replace', "'A PostgreSQL function", "'a|e|i|o|u", "'X", '1', '3', "'i"),
 ('regexp_match', "'foobarbequebaz", "'(bar)(beque)"), ('regexp_match', "'foobar", "'o+"), ('regexp_match', "'foobar", "'x"), ('regexp_match', "'FOO", "'foo", "'i"), ('regexp_split_to_array', "'the quick brown", "'\\s+"), ('regexp_split_to_array', "'abc", "'"), ('regexp_split_to_array', "'a1b22c", "'[0-9]*"), ('regexp_count', "'123456789012", "'\\d\\d\\d", '2'), ('regexp_count', "'ABCABC", "'b", '1', "'i"), ('regexp_like', "'Hello World", "'world$", "'i"), ('regexp_like', "'abc", "'^b"), ('regexp_substr', "'ABCDEF", "'c(.)(..)", '1', '1', "'i", '2'), ('regexp_substr', "'number of your street", "'[^ ]+", '1', '3'), ('regexp_instr', "'ABCDEF", "'c(.)(..)", '1', '1', '0', "'i"), ('regexp_instr', "'abcabc", "'b", '1', '2'),
 ('starts_with', "'alphabet", "'alph"), ('string_to_array', "'xx~~yy~~zz", "'~~", "'yy"), ('string_to_array', "'abc", 'NULL'), ('string_to_array', "'", "',"), ('string_to_array', "'a,b", "'"), ('array_to_string', 'text[]:{1,2,NULL,5}', "',", "'*"), ('array_to_string', 'int4[]:{1,2,NULL,5}', "',"), ('array_to_string', 'bool[]:{t,f}', "'-"),
 ('array_length', 'int4[]:{1,2}', '1'), ('array_length', 'int4[]:{}', '1'), ('array_length', 'int4[]:{1}', '2'), ('array_upper', 'int4[]:[0:1]={1,2}', '1'), ('array_lower', 'int4[]:[0:1]={1,2}', '1'), ('array_ndims', 'int4[]:{{1},{2}}'), ('array_dims', 'int4[]:{{1,2},{3,4}}'), ('array_dims', 'int4[]:[0:1]={1,2}'), ('cardinality', 'int4[]:{{1,2},{3,4}}'), ('cardinality', 'int4[]:{}'),
 ('array_append', 'int4[]:{1,2}', '3'), ('array_append', 'int4[]:{1,2}', 'NULL'), ('array_append', 'int4[]:{1}', 'int8:3'), ('array_append', 'int4[]:{1}', '3.5'), ('array_prepend', '3', 'int4[]:{1,2}'), ('array_cat', 'int4[]:{1,2}', 'int4[]:{3}'), ('array_cat', 'int4[]:{{1,2}}', 'int4[]:{3,4}'), ('array_position', 'text[]:{sun,mon,tue}', "'mon"), ('array_position', 'int4[]:{1,4,3,1}', '1', '2'), ('array_positions', 'text[]:{A,A,B,A}', "'A"), ('array_remove', 'int4[]:{1,2,3,2}', '2'), ('array_replace', 'int4[]:{1,2,5,4}', '5', '3'), ('array_fill', '7', 'int4[]:{2,3}'), ('array_fill', '7', 'int4[]:{2}', 'int4[]:{5}'),
 ('num_nulls', '1', 'NULL', '2'), ('num_nonnulls', '1', 'NULL', '2'), ('pg_typeof', '1.5'), ('pg_typeof', "'x"), ('pg_typeof', 'int4[]:{}'), ('format_type', 'oid:23', 'NULL'), ('format_type', 'oid:1043', '14'), ('format_type', 'oid:1042', '-1'), ('format_type', 'oid:1042', 'NULL'), ('format_type', 'oid:1700', '655366'), ('format_type', 'oid:1007', 'NULL'), ('format_type', 'oid:0', 'NULL'), ('format_type', 'oid:999999', 'NULL'), ('format_type', 'NULL', 'NULL'), ('format_type', 'oid:1114', '3'), ('pg_size_pretty', 'int8:10239'), ('pg_size_pretty', 'int8:10240'), ('pg_size_pretty', 'int8:123456789'), ('pg_size_pretty', 'int8:-123456789012'), ('pg_size_pretty', 'int8:9223372036854775807'), ('pg_encoding_to_char', '6'), ('pg_char_to_encoding', "'utf8"),
 ('mod', '7', '4'), ('mod', '7.5', '2'), ('mod', '7', '0'), ('pi',), ('atan2', '1', '2'), ('asin', '2'), ('acos', '0.5'), ('sinh', '1'), ('tanh', '0.5'), ('cot', '0.5'), ('exp', 'float8:1000'), ('sqrt', '-1'), ('ln', '0'), ('ln', '-1'), ('asin', '0.5'),
 ('timezone', "'UTC", 'timestamp:2024-07-01 12:00'), ('timezone', "'America/New_York", 'timestamptz:2024-07-01 12:00+00'), ('timezone', "'America/New_York", 'timestamp:2024-07-01 12:00'), ('timezone', "'nope", 'timestamp:2024-07-01 12:00'), ('timezone', "'+03", 'timestamptz:2024-07-01 12:00+00'), ('timezone', 'interval:02:00', 'timestamptz:2024-07-01 12:00+00'), ('timezone', "'EST", 'timestamptz:2024-07-01 12:00+00'), ('timezone', "'utc", 'timestamptz:2024-07-01 12:00+00'),
 ('age', 'date:2024-03-31', 'date:2024-02-29'), ('age', "'2024-03-31", 'date:2024-02-29'),
 ('make_date', '2024', '2', '29'), ('make_date', '2024', '2', '30'), ('make_date', '-44', '3', '15'), ('make_time', '8', '15', '23.5'), ('make_time', '25', '0', '0'), ('make_timestamp', '2013', '7', '15', '8', '15', '23.5'), ('make_timestamp', '2013', '13', '15', '8', '15', '23.5'), ('make_interval', '1', '2', '3', '4', '5', '6', '7.5'), ('make_interval', '0'), ('make_timestamptz', '2013', '7', '15', '8', '15', '23.5'), ('make_timestamptz', '2013', '7', '15', '8', '15', '23.5', "'America/New_York"),
 ('date_bin', 'interval:15 minutes', 'timestamp:2020-02-11 15:44:17', 'timestamp:2001-01-01'), ('date_bin', 'interval:1 month', 'timestamp:2020-02-11', 'timestamp:2001-01-01'), ('date_bin', 'interval:0', 'timestamp:2020-02-11', 'timestamp:2001-01-01'), ('date_bin', 'interval:1 day', 'timestamptz:2000-02-11 01:00+00', 'timestamptz:2001-01-01+00'),
 ('to_timestamp', '1284352323'), ('to_timestamp', '0.5'), ('to_timestamp', 'float8:NaN'), ('to_timestamp', 'float8:Infinity'), ('isfinite', 'date:infinity'), ('isfinite', 'timestamp:2024-01-01'), ('isfinite', 'interval:1 day'), ('justify_days', 'interval:35 days'), ('justify_hours', 'interval:27 hours'), ('justify_interval', 'interval:1 mon -1 hour'), ('justify_days', 'interval:-35 days'), ('justify_interval', 'interval:35 days 49 hours'),
 ('age', 'timestamp:2001-04-10', 'timestamp:1957-06-13'), ('age', 'timestamp:1957-06-13', 'timestamp:2001-04-10'), ('age', 'timestamp:2024-03-31', 'timestamp:2024-02-29'), ('age', 'timestamp:2024-03-01 01:00', 'timestamp:2024-01-31 02:00'), ('age', 'timestamptz:2024-03-01 01:00+00', 'timestamptz:2024-01-31 02:00+00'), ('age', 'timestamp:2023-03-30', 'timestamp:2020-01-31'),
 ('to_char', 'timestamp:2024-02-29 15:04:05.678901', "'YYYY-MM-DD HH24:MI:SS.MS"), ('to_char', 'timestamp:2024-02-29 15:04:05.678901', "'Day, DD Month YYYY HH12:MI:SS PM"), ('to_char', 'timestamp:2024-02-29 15:04:05.678901', "'FMDay, FMDD FMMonth YYYY"), ('to_char', 'timestamp:2024-02-29 15:04:05.678901', "'Dy DY dy Mon MON mon D ID DDD IDDD W WW IW IYYY Q J CC Y,YYY YY RM US SSSS"), ('to_char', 'timestamp:2024-02-01 05:04:05', "'DDth HH\"h\" MI"), ('to_char', 'timestamp:0044-03-15 00:00 BC', "'YYYY BC AD b.c."), ('to_char', 'interval:15h 2m 12s', "'HH24:MI:SS"), ('to_char', 'interval:1 year 2 mons 3 days', "'YYYY MM DD"), ('to_char', 'timestamp:infinity', "'YYYY"), ('to_char', 'timestamptz:2024-07-01 12:00+00', "'HH:MI TZ OF"),
 ('to_char', '125', "'999"), ('to_char', '-125', "'999"), ('to_char', '12345', "'999"), ('to_char', '125.8', "'999D9"), ('to_char', '-125.8', "'999D99S"), ('to_char', '1234567.891', "'9,999,999.99"), ('to_char', '0.1', "'0.9"), ('to_char', '0.1', "'FM9.99"), ('to_char', '12', "'0000"), ('to_char', '-12', "'S0000"), ('to_char', '-12', "'9999MI"), ('to_char', '-12', "'9999PR"), ('to_char', '485', "'RN"), ('to_char', '485', "'L999"), ('to_char', '482', "'999th"), ('to_char', '12.45', "'99V9"), ('to_char', '0.0004859', "'9.99EEEE"), ('to_char', '148.5', "'FM999.990"), ('to_char', 'float8:3.1', "'9.99"), ('to_char', 'int8:123', "'FM000000"), ('to_char', '-0.5', "'9.9"), ('to_char', '0', "'9"), ('to_char', '1e5', "'99999SG"), ('to_char', '5', "'FM00"),
 ('to_number', "'12,454.8-", "'99G999D9S"), ('to_number', "'1234", "'9999"), ('to_number', "'-34,338,492", "'99G999G999"), ('to_number', "'$1,234.56", "'L9,999.99"), ('to_number', "'abc", "'999"),
 ('to_date', "'05 Dec 2000", "'DD Mon YYYY"), ('to_date', "'2024-02-30", "'YYYY-MM-DD"), ('to_date', "'20240229", "'YYYYMMDD"), ('to_date', "'2024-060", "'YYYY-DDD"), ('to_date', "'x", "'YYYY"), ('to_timestamp', "'05 Dec 2000 10:11:12", "'DD Mon YYYY HH24:MI:SS"), ('to_timestamp', "'2000-12-05 10:11 PM", "'YYYY-MM-DD HH:MI AM"), ('to_timestamp', "'12.345", "'SS.MS"), ('to_date', "'Feb 3, 99", "'Mon DD, YY"),
]
for name, *args in S: add('fn', name, *args)
for name in ['lower', 'upper', 'length', 'abs', 'round', 'sqrt', 'md5', 'now2', 'substr', 'repeat', 'sum2', 'quote_ident', 'date_trunc', 'to_hex', 'array_length', 'unnest2', 'concat', 'left']:
    for args in [(), ('1',), ("'1",), ('1.5',), ('bool:t',), ('NULL',), ('date:2024-01-01',), ("'a", '1'), ('1', '1'), ('int4[]:{1}', '1')]: add('fn', name, *args)
UNITS = ['microseconds', 'milliseconds', 'second', 'minute', 'hour', 'day', 'dow', 'isodow', 'doy', 'week', 'month', 'quarter', 'year', 'isoyear', 'decade', 'century', 'millennium', 'epoch', 'julian', 'timezone', 'timezone_hour', 'timezone_minute', 'nonsense']
for unit in UNITS:
    for v in ['timestamp:2024-02-29 12:34:56.789', 'timestamp:0044-03-15 BC', 'timestamp:2000-12-31 23:59:59', 'date:2021-01-03', 'date:0001-01-01 BC', 'time:12:34:56.789', 'interval:1 year 14 months 40 days 26:03:04.5', 'interval:-1 year -2 mons -3 days -04:05:06.7', 'timestamptz:2024-07-01 12:00:00.5+02', 'timestamp:infinity', 'date:-infinity']:
        add('fn', 'date_part', "'" + unit, v); add('fn', 'extract', "'" + unit, v)
        if not v.startswith('time:'): add('fn', 'date_trunc', "'" + unit, v)
add('fn', 'date_trunc', "'day", 'timestamptz:2024-07-01 02:00+00', "'America/New_York")
for p, t in itertools.product(['%', '_', 'a%', '%c', 'a_c', '\\%', 'a\\_c', '', '%%', '_%_', 'A%', 'é%', '%a%b%', 'a\\'], ['abc', '', 'a_c', '%', 'a', 'é', 'aab']):
    add('op', '~~', typed('text', t), "'" + p); add('op', '~~*', typed('text', t), "'" + p)
for p, t in itertools.product(['^a', 'b$', 'a|b', '[a-c]+', '\\d', '\\mfoo\\M', '[[:alpha:]]', 'a{2}', '(', '[', '*', 'a**', '(?i)A', 'x*', '^(pg_class)$', '\\.', '[^]a]', '.'], ['abc', 'a1', 'foo bar', 'aa', 'pg_class', ']', '', '\n']):
    add('op', '~', typed('text', t), "'" + p)
for t in ['oid[]', 'int2[]', 'name[]', 'bool[]', 'int2vector', 'oidvector']: add('op', '=', f'{t}:' + ('1 2' if 'vector' in t else '{}'), "'{0}"); add('op', '||', f'{t}:' + ('1 2' if 'vector' in t else '{}'), "'{0}")
for p in ['A', 'b+']: add('op', '~*', "'ab", "'" + p); add('op', '!~*', "'ab", "'" + p); add('op', '!~', "'ab", "'" + p); add('op', '!~~', "'ab", "'" + p)

def sql(arg):
    if arg == 'NULL' or (arg and arg[0] in '-0123456789' and ':' not in arg): return f'({arg})' if arg[0] == '-' else arg
    if arg.startswith("'"): return "'" + arg[1:].replace("'", "''") + "'"
    t, v = arg.split(':', 1)
    return "'" + v.replace("'", "''") + "'::" + t
def expression(kind, name, args):
    a = [sql(x) for x in args]
    if kind == 'op': return f'({a[0]}) {name} ({a[1]})' if len(a) == 2 else f'{name} ({a[0]})'
    if kind == 'cast': return f'({a[0]})::{name}'
    if name == 'position': return f'position({a[1]} in {a[0]})'
    return f'pg_catalog."{name}"({", ".join(a)})'
seen = set(); unique = []
for c in cases:
    key = (c[0], c[1], tuple(c[2]))
    if key not in seen and not any('\t' in x for x in c[2]): seen.add(key); unique.append(c)
script = ["\\set VERBOSITY sqlstate", "\\pset null NULL", "set timezone='UTC';", "set lc_messages='C';"]
for n, c in enumerate(unique):
    e = expression(*c)
    script.append(f"\\echo @@{n}\nselect pg_typeof({e}) || ':', {e};")
run = subprocess.run(sys.argv[1].split() + ['-AtqX', '-F', ' '], input='\n'.join(script), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
answers = {}; current = None
for line in run.stdout.split('\n'):
    if line.startswith('@@'): current = int(line[2:]); answers[current] = []
    elif current is not None: answers[current].append(line)
escape = lambda s: s.replace('\\', '\\\\').replace('\n', '\\n')
for n, (kind, name, args) in enumerate(unique):
    text = '\n'.join(answers.get(n, [])).rstrip('\n') if answers.get(n) != [''] else ''
    text = '\n'.join(answers[n][:-1] if answers[n] and answers[n][-1] == '' and len(answers[n]) > 1 else answers[n])
    if text.startswith('ERROR:'): text = text.split()[1]
    print('\t'.join([kind, name] + [escape(a) for a in args] + ['=', escape(text)]))
