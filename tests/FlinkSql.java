import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

/** Runs the SQL statements of a file as batch jobs of a cluster, one after the other: FlinkSql FILE HOST PORT. */
public class FlinkSql {
    public static void main(String[] arguments) throws Exception {
        Configuration cluster = new Configuration();
        cluster.setString("execution.target", "remote");
        cluster.setString("rest.address", arguments[1]);
        cluster.setString("rest.port", arguments[2]);
        TableEnvironment tables = TableEnvironment.create(
            EnvironmentSettings.newInstance().inBatchMode().withConfiguration(cluster).build());
        for (String statement : Files.readString(Path.of(arguments[0])).split(";")) {
            if (!statement.isBlank()) {
                TableResult result = tables.executeSql(statement);
                if (result.getJobClient().isPresent()) {
                    result.await();
                }
            }
        }
    }
}
