#!/usr/bin/env python3
"""Writes aggregates.txt: aggregates over a few rows with the answers of a running PostgreSQL 15.

    aggregates.py 'psql -h 127.0.0.1 -p 15990 -U postgres' > aggregates.txt

One case a line, tab-separated: aggregate, type, values (separated by |), `=`, answer.
"""
import subprocess, sys
SETS={'int2':['1','2','-4','NULL'],'int4':['1','2','4','2147483647'],'int8':['9223372036854775807','9223372036854775807','5'],'numeric':['1.5','2.50','NULL','-0.003'],'float4':['1.5','2.25','0.1'],'float8':['1.5','2.25','0.1','1e10'],'interval':['1 day','2 hours','1 mon'],'text':['b','a','NULL','c'],'bool':['t','f','NULL'],'date':['2024-01-02','2023-01-01'],'timestamptz':['2024-01-02 00:00+00','2023-01-01 00:00+00'],'bytea':['\\x01','\\x02'],'uuid':['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],'time':['01:02','03:04'],'"char"':['a','b'],'oid':['1','2'],'varchar':['x','y'],'char(3)':['x','y'],'name':['n','m'],'int4[]':['{1,2}','{0}'],'float8 ':['NaN','1'],'numeric ':['NaN','1','Infinity'],'int4 ':['NULL'],'numeric  ':['1','1','1'],'float8  ':['5']}
F=['count','sum','avg','min','max','bool_and','bool_or','every','string_agg','array_agg','stddev','stddev_pop','stddev_samp','variance','var_pop','var_samp','bit_and','bit_or','bit_xor']
for t,vs in SETS.items():
    t=t.strip()
    for f in F:
        vals=','.join('(%d,%s::%s)'%(i,'NULL' if v=='NULL' else "'"+v+"'",t) for i,v in enumerate(vs))
        extra=", ','" if f=='string_agg' and t!='bytea' else (", '\\x2c'::bytea" if f=='string_agg' else '')
        q=f"\\set VERBOSITY sqlstate\nset timezone='UTC';\\pset null NULL\nselect pg_typeof(r)||': ', r from (select {f}(v{extra} order by i) r from (values {vals}) x(i,v)) y"
        r=subprocess.run(sys.argv[1].split() + ['-AtqX', '-F', ''],input=q,capture_output=True,text=True)
        o=(r.stdout.strip('\n') or r.stderr.strip())
        o=o.replace('ERROR:  ','')
        print('\t'.join([f,t,'|'.join(vs),'=',o]))
