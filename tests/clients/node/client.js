// node-postgres with its cursors and COPY streams. Prints `ok NAME` or `FAIL NAME: reason` for each check and exits with 1
// when one failed.
const assert = require('assert');
const { Readable } = require('stream');
const { pipeline } = require('stream/promises');
const { Client, Pool } = require('pg');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');
const Cursor = require('pg-cursor');

const place = {
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  user: process.env.PGUSER,
  database: process.env.PGDATABASE,
};

async function connected(work, options = {}) {
  const client = new Client({ ...place, ...options });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const checks = {
  a_row_of_every_type: () =>
    connected(async (client) => {
      await client.query(
        'drop table if exists nd; create table nd (id serial primary key, t text, n numeric, ts timestamptz, a int[],' +
          ' b bytea, big bigint, j jsonb, f float8, flag bool)',
      );
      const values = ['é', '1.50', new Date(0), [1, 2, null], Buffer.from([0, 255]), '9007199254740993', { k: [1] }, 1.5, true];
      const names = 't, n, ts, a, b, big, j, f, flag';
      const marks = values.map((_, index) => `$${index + 1}`).join(', ');
      const { rows } = await client.query(`insert into nd (${names}) values (${marks}) returning ${names}`, values);
      assert.deepEqual(Object.values(rows[0]), values);
    }),

  json_values: () =>
    connected(async (client) => {
      const { rows } = await client.query("select $1::jsonb as j, $1::jsonb -> 'a' ->> 0 as first", [{ a: ['x'] }]);
      assert.deepEqual(rows[0], { j: { a: ['x'] }, first: 'x' });
    }),

  prepared_statements: () =>
    connected(async (client) => {
      for (let number = 0; number < 5; number++) {
        const { rows } = await client.query({ name: 'plus', text: 'select $1::int + 1 as x', values: [number] });
        assert.equal(rows[0].x, number + 1);
      }
    }),

  pools: async () => {
    const pool = new Pool({ ...place, max: 5 });
    const results = await Promise.all([...Array(50).keys()].map((number) => pool.query('select $1::int as x', [number])));
    assert.deepEqual(results.map(({ rows }) => rows[0].x), [...Array(50).keys()]);
    await pool.end();
  },

  transactions: () =>
    connected(async (client) => {
      await client.query('begin');
      await assert.rejects(client.query('select 1 / 0'), (error) => error.code === '22012');
      await assert.rejects(client.query('select 1'), (error) => error.code === '25P02');
      await client.query('rollback');
      assert.equal((await client.query('select 1 as x')).rows[0].x, 1);
    }),

  cursors: () =>
    connected(async (client) => {
      const cursor = client.query(new Cursor('select generate_series(1, 1000) as g'));
      let count = 0;
      for (let rows; (rows = await cursor.read(100)).length; ) count += rows.length;
      assert.equal(count, 1000);
      await cursor.close();
    }),

  copy_both_ways: () =>
    connected(async (client) => {
      await client.query('drop table if exists nd_copy; create table nd_copy (a int, b text)');
      await pipeline(Readable.from(['1\tx\n2\t', 'y\n']), client.query(copyFrom('copy nd_copy from stdin')));
      let text = '';
      for await (const chunk of client.query(copyTo('copy nd_copy to stdout csv header'))) text += chunk;
      assert.equal(text, 'a,b\n1,x\n2,y\n');
    }),

  results_of_several_statements: () =>
    connected(async (client) => {
      const results = await client.query('select 1 as a; select 2 as b');
      assert.deepEqual(results.map(({ rows }) => rows[0]), [{ a: 1 }, { b: 2 }]);
      const { rows } = await client.query({ text: 'select 1, 2', rowMode: 'array' });
      assert.deepEqual(rows, [[1, 2]]);
    }),

  errors_have_their_places: () =>
    connected(async (client) => {
      await assert.rejects(client.query('selec 1'), (error) => error.code === '42601' && error.position === '1');
      await assert.rejects(client.query('select nope'), (error) => error.code === '42703' && error.position === '8');
    }),

  the_binary_format: () =>
    connected(
      async (client) => {
        const { rows } = await client.query('select $1::int as a, $2::text as b, true as c', [1, 'x']);
        assert.deepEqual(rows[0], { a: 1, b: 'x', c: true });
      },
      { binary: true },
    ),

  a_statement_has_a_time_limit: () =>
    connected(
      async (client) => {
        await assert.rejects(client.query('select pg_sleep(60)'), (error) => error.code === '57014');
        assert.equal((await client.query('select 1 as x')).rows[0].x, 1);
      },
      { statement_timeout: 300, lock_timeout: 100, idle_in_transaction_session_timeout: 10000, application_name: 'checks' },
    ),
};

const deadline = (name) =>
  new Promise((_, reject) => setTimeout(() => reject(new Error(`${name} took more than 60 s`)), 60000).unref());

(async () => {
  let failed = false;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await Promise.race([check(), deadline(name)]);
      console.log(`ok ${name}`);
    } catch (error) {
      failed = true;
      console.log(`FAIL ${name}: ${error.code || ''} ${error.message.replace(/\s+/g, ' ')}`);
    }
  }
  process.exit(failed ? 1 : 0);
})();
