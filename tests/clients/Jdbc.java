import java.math.BigDecimal;
import java.sql.*;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.UUID;
import org.postgresql.PGConnection;

/**
 * pgjdbc: every kind of statement, batches, fetch sizes, updatable results, COPY and what tools ask of DatabaseMetaData. Prints
 * {@code ok NAME} or {@code FAIL NAME: reason} for each check and exits with 1 when one failed.
 */
public class Jdbc {
  interface Check {
    void run() throws Exception;
  }

  static final String HOST = System.getenv("PGHOST");
  static final String USER = System.getenv("PGUSER");
  static final String DATABASE = System.getenv("PGDATABASE");
  static final String PLACE = HOST + ":" + System.getenv("PGPORT");

  static Connection connect(String options) throws SQLException {
    return DriverManager.getConnection("jdbc:postgresql://" + PLACE + "/" + DATABASE + options, USER, "");
  }

  static Connection connect() throws SQLException {
    return connect("");
  }

  static void same(Object wanted, Object found) {
    if (!wanted.equals(found)) throw new AssertionError("wanted " + wanted + ", found " + found);
  }

  static String fails(Check check) throws Exception {
    try {
      check.run();
    } catch (SQLException error) {
      return error.getSQLState();
    }
    throw new AssertionError("it did not fail");
  }

  /** Reads all rows and counts them. */
  static int count(ResultSet rows) throws SQLException {
    int count = 0;
    while (rows.next()) {
      for (int column = 1; column <= rows.getMetaData().getColumnCount(); column++) rows.getObject(column);
      count++;
    }
    return count;
  }

  static void rowOfEveryType() throws Exception {
    try (Connection conn = connect(); Statement statement = conn.createStatement()) {
      statement.execute("drop table if exists jb cascade");
      statement.execute(
          "create table jb (id serial primary key, t varchar(20) not null, n numeric(10,2), ts timestamptz, d date, b bytea,"
              + " bo boolean, f double precision, a int[], u uuid, l bigint, tm time, si smallint, j jsonb)");
      String insert = "insert into jb (t, n, d, b, bo, f, a, u, l, ts, tm, si, j) values (?,?,?,?,?,?,?,?,?,?,?,?,?::jsonb)";
      PreparedStatement put = conn.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS);
      PreparedStatement get = conn.prepareStatement("select * from jb where id = ?");
      // Often enough for the driver to change to server-side statements and binary forms.
      for (int number = 1; number <= 20; number++) {
        put.setString(1, "x" + number);
        put.setBigDecimal(2, new BigDecimal("1.50"));
        put.setObject(3, LocalDate.of(2020, 1, 2));
        put.setBytes(4, new byte[] {0, -1});
        put.setBoolean(5, true);
        put.setDouble(6, 1.5);
        put.setArray(7, conn.createArrayOf("int4", new Integer[] {1, null}));
        put.setObject(8, new UUID(0, 5));
        put.setLong(9, 1L << 60);
        put.setTimestamp(10, new Timestamp(0));
        put.setTime(11, Time.valueOf("01:02:03"));
        put.setShort(12, (short) 3);
        put.setString(13, "{\"k\":[1]}");
        same(1, put.executeUpdate());
        ResultSet keys = put.getGeneratedKeys();
        keys.next();
        same(number, keys.getInt(1));
        get.setInt(1, number);
        ResultSet row = get.executeQuery();
        row.next();
        same("x" + number, row.getString("t"));
        same(new BigDecimal("1.50"), row.getBigDecimal("n"));
        same(LocalDate.of(2020, 1, 2), row.getObject("d", LocalDate.class));
        same((byte) -1, row.getBytes("b")[1]);
        same(1.5, row.getDouble("f"));
        same(1, ((Integer[]) row.getArray("a").getArray())[0]);
        same(new UUID(0, 5), row.getObject("u"));
        same(1L << 60, row.getLong("l"));
        same(0L, row.getObject("ts", OffsetDateTime.class).toEpochSecond());
        same("01:02:03", row.getTime("tm").toString());
        same("{\"k\": [1]}", row.getString("j"));
      }
    }
  }

  static void batches() throws Exception {
    try (Connection conn = connect("?reWriteBatchedInserts=true")) {
      conn.setAutoCommit(false);
      PreparedStatement insert = conn.prepareStatement("insert into jb (t, n) values (?, ?)");
      for (int number = 0; number < 500; number++) {
        insert.setString(1, "b" + number);
        insert.setInt(2, number);
        insert.addBatch();
      }
      same(500, insert.executeBatch().length);
      conn.commit();
      PreparedStatement update = conn.prepareStatement("update jb set n = ? where id = ?");
      for (int number = 0; number < 100; number++) {
        update.setInt(1, number);
        update.setInt(2, number);
        update.addBatch();
      }
      same(100, update.executeBatch().length);
      conn.rollback();
    }
  }

  static void fetchSizes() throws Exception {
    try (Connection conn = connect()) {
      conn.setAutoCommit(false);
      Statement statement = conn.createStatement();
      statement.setFetchSize(50);
      same(520, count(statement.executeQuery("select * from jb")));
    }
  }

  static void updatableResults() throws Exception {
    try (Connection conn = connect()) {
      Statement statement = conn.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
      ResultSet rows = statement.executeQuery("select id, t from jb where id = 1");
      rows.next();
      rows.updateString("t", "updated");
      rows.updateRow();
      rows = conn.createStatement().executeQuery("select t from jb where id = 1");
      rows.next();
      same("updated", rows.getString(1));
    }
  }

  static void errorsAndSavepoints() throws Exception {
    try (Connection conn = connect(); Statement statement = conn.createStatement()) {
      same("23505", fails(() -> statement.execute("insert into jb (id, t) values (1, 'x')")));
      conn.setAutoCommit(false);
      Savepoint savepoint = conn.setSavepoint("a");
      same("22012", fails(() -> statement.execute("select 1 / 0")));
      same("25P02", fails(() -> statement.execute("select 1")));
      conn.rollback(savepoint);
      same(1, count(statement.executeQuery("select 1")));
      conn.rollback();
    }
    // With this the driver itself goes back after an error.
    try (Connection conn = connect("?autosave=always"); Statement statement = conn.createStatement()) {
      conn.setAutoCommit(false);
      fails(() -> statement.execute("select 1 / 0"));
      same(1, count(statement.executeQuery("select 1")));
    }
  }

  static void sessions() throws Exception {
    try (Connection conn = connect()) {
      int[] levels = {
        Connection.TRANSACTION_READ_COMMITTED, Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_SERIALIZABLE
      };
      for (int level : levels) {
        conn.setTransactionIsolation(level);
        same(level, conn.getTransactionIsolation());
      }
      conn.setReadOnly(true);
      same(true, conn.isValid(2));
      conn.setSchema("public");
      same("public", conn.getSchema());
      same(DATABASE, conn.getCatalog());
      conn.setNetworkTimeout(Runnable::run, 5000);
    }
  }

  static void copy() throws Exception {
    try (Connection conn = connect()) {
      var manager = conn.unwrap(PGConnection.class).getCopyAPI();
      same(2L, manager.copyIn("copy jb (t, n) from stdin csv", new java.io.StringReader("a,1\nb,2\n")));
      var out = new java.io.StringWriter();
      same(2L, manager.copyOut("copy (select t from jb where t in ('a', 'b') order by t) to stdout", out));
      same("a\nb\n", out.toString());
    }
  }

  static void metadata() throws Exception {
    try (Connection conn = connect(); Statement statement = conn.createStatement()) {
      statement.execute("drop table if exists jc");
      statement.execute("create table jc (id int primary key, jid int references jb on delete cascade, unique (jid, id))");
      statement.execute("comment on column jb.t is 'text'");
      DatabaseMetaData data = conn.getMetaData();
      same("PostgreSQL", data.getDatabaseProductName());
      same(2, count(data.getTables(null, "public", "j_", new String[] {"TABLE"})));
      count(data.getTables(null, null, "%", null));
      ResultSet columns = data.getColumns(null, "public", "jb", "t");
      columns.next();
      same("text", columns.getString("REMARKS"));
      same(20, columns.getInt("COLUMN_SIZE"));
      same(14, count(data.getColumns(null, "public", "jb", "%")));
      ResultSet key = data.getPrimaryKeys(null, "public", "jb");
      key.next();
      same("id", key.getString("COLUMN_NAME"));
      ResultSet imported = data.getImportedKeys(null, "public", "jc");
      imported.next();
      same("jb", imported.getString("PKTABLE_NAME"));
      same(DatabaseMetaData.importedKeyCascade, (int) imported.getShort("DELETE_RULE"));
      same(1, count(data.getExportedKeys(null, "public", "jb")));
      same(1, count(data.getCrossReference(null, "public", "jb", null, "public", "jc")));
      same(3, count(data.getIndexInfo(null, "public", "jc", false, false)));
      same(1, count(data.getBestRowIdentifier(null, "public", "jb", 1, false)));
      for (ResultSet rows :
          new ResultSet[] {
            data.getSchemas(), data.getCatalogs(), data.getTypeInfo(), data.getTableTypes(), data.getProcedures(null, null, "%"),
            data.getFunctions(null, null, "now%"), data.getUDTs(null, null, "%", null),
            data.getColumnPrivileges(null, "public", "jb", "%"), data.getTablePrivileges(null, "public", "jb"),
            data.getVersionColumns(null, "public", "jb"), data.getProcedureColumns(null, null, "%", "%"),
            data.getFunctionColumns(null, null, "now%", "%"), data.getClientInfoProperties()
          }) {
        count(rows);
      }
      data.getSQLKeywords();
      data.getMaxConnections();
      ResultSet rows = statement.executeQuery("select j.id, t, n as num, count(*) over () from jb j limit 1");
      ResultSetMetaData shape = rows.getMetaData();
      same("jb", shape.getTableName(1));
      same(true, shape.isAutoIncrement(1));
      same(ResultSetMetaData.columnNoNulls, shape.isNullable(2));
      same(10, shape.getPrecision(3));
      PreparedStatement prepared = conn.prepareStatement("select * from jb where id = ? and t = ?");
      same(2, prepared.getParameterMetaData().getParameterCount());
      same("int4", prepared.getParameterMetaData().getParameterTypeName(1));
    }
  }

  static void callsAndEscapes() throws Exception {
    try (Connection conn = connect(); Statement statement = conn.createStatement()) {
      CallableStatement call = conn.prepareCall("{? = call upper(?)}");
      call.registerOutParameter(1, Types.VARCHAR);
      call.setString(2, "abc");
      call.execute();
      same("ABC", call.getString(1));
      String escapes = "select {fn now()}, {d '2020-01-01'}, {ts '2020-01-01 01:02:03'}, {fn concat('a','b')}, {fn ucase('a')},"
          + " {fn timestampadd(SQL_TSI_DAY, 1, now())}";
      same(1, count(statement.executeQuery(escapes)));
      PreparedStatement exists = conn.prepareStatement("select ?::jsonb ?? 'a'");
      exists.setString(1, "{\"a\": 1}");
      ResultSet rows = exists.executeQuery();
      rows.next();
      same(true, rows.getBoolean(1));
    }
  }

  static void timeLimits() throws Exception {
    try (Connection conn = connect(); Statement statement = conn.createStatement()) {
      statement.setQueryTimeout(1);
      same("57014", fails(() -> statement.execute("select pg_sleep(60)")));
      same(1, count(statement.executeQuery("select 1")));
    }
  }

  static void hostsAreChosen() throws Exception {
    for (String type : new String[] {"any", "primary", "preferSecondary", "preferPrimary"}) {
      try (Connection conn = connect("?targetServerType=" + type)) {
        same(1, count(conn.createStatement().executeQuery("select 1")));
      }
    }
    String hosts = HOST + ":" + System.getenv("CLIENT_PORTS").replace(",", "," + HOST + ":");
    for (int round = 0; round < 5; round++) {
      String url = "jdbc:postgresql://" + hosts + "/" + DATABASE + "?loadBalanceHosts=true";
      try (Connection conn = DriverManager.getConnection(url, USER, "")) {
        same(1, count(conn.createStatement().executeQuery("select 1")));
      }
    }
  }

  static void simpleProtocol() throws Exception {
    String options = "?preferQueryMode=simple&binaryTransfer=false&options=-c%20statement_timeout=5s&ApplicationName=z";
    try (Connection conn = connect(options)) {
      PreparedStatement statement = conn.prepareStatement("select ?, ?");
      statement.setInt(1, 1);
      statement.setString(2, "q'q\\");
      ResultSet rows = statement.executeQuery();
      rows.next();
      same("q'q\\", rows.getString(2));
    }
  }

  public static void main(String[] args) {
    Map<String, Check> checks = new LinkedHashMap<>();
    checks.put("a_row_of_every_type", Jdbc::rowOfEveryType);
    checks.put("batches", Jdbc::batches);
    checks.put("fetch_sizes", Jdbc::fetchSizes);
    checks.put("updatable_results", Jdbc::updatableResults);
    checks.put("errors_and_savepoints", Jdbc::errorsAndSavepoints);
    checks.put("sessions", Jdbc::sessions);
    checks.put("copy", Jdbc::copy);
    checks.put("metadata", Jdbc::metadata);
    checks.put("calls_and_escapes", Jdbc::callsAndEscapes);
    checks.put("time_limits", Jdbc::timeLimits);
    checks.put("hosts_are_chosen", Jdbc::hostsAreChosen);
    checks.put("the_simple_protocol", Jdbc::simpleProtocol);
    boolean failed = false;
    for (var check : checks.entrySet()) {
      try {
        check.getValue().run();
        System.out.println("ok " + check.getKey());
      } catch (Throwable error) {
        failed = true;
        StackTraceElement place = error.getStackTrace()[0];
        for (StackTraceElement element : error.getStackTrace()) {
          if (element.getClassName().startsWith("Jdbc") && !element.getMethodName().equals("same")) {
            place = element;
            break;
          }
        }
        System.out.println("FAIL " + check.getKey() + ": " + error.toString().replaceAll("\\s+", " ") + " at " + place);
      }
    }
    System.exit(failed ? 1 : 0);
  }
}
