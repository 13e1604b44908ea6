#!/usr/bin/env bash
# What starts in the images of ray and spark. Spark's driver and executors on Kubernetes call it with one word, `driver`
# or `executor`, and tell the rest by variables (Spark 4.3: org.apache.spark.deploy.k8s.Constants); Spark's Python package
# has no such program. Any other command is run as it is.
set -euo pipefail

# As the first process of a container it waits for whatever is left behind, which Java does not.
init=()
if [ "$$" = 1 ] && command -v tini >/dev/null; then init=(tini -s --); fi

case "${1:-}" in
  driver)
    shift
    exec "${init[@]}" spark-submit --deploy-mode client \
      --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
      --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" "$@"
    ;;
  executor)
    jars="${SPARK_HOME:-$(python -m pyspark.find_spark_home)}/jars/*"
    options=()
    # Numbered, and in their order: a later one may replace what an earlier one says.
    while IFS= read -r name; do options+=("${!name}"); done < <(compgen -v SPARK_JAVA_OPT_ | sort -V)
    exec "${init[@]}" java "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
      -cp "${SPARK_CONF_DIR:+$SPARK_CONF_DIR:}${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}$jars" \
      org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
      --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
      --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
      --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
  *)
    exec "${init[@]}" "$@"
    ;;
esac
