#!/usr/bin/env bash
# Starts one part of Airflow: start.sh init|api-server|scheduler|dag-processor|triggerer
# Listens on every address of its container; which of them can be reached from outside is the compose file's business.
set -euo pipefail
case ${1:?give the part: init, api-server, scheduler, dag-processor or triggerer} in
    init)
        airflow db migrate
        airflow pools set embedmill 1 "one writer on the live index"
        airflow pools set embedmill_build 1 "one build beside it"
        ;;
    api-server)
        # Airflow's simple authentication reads passwords from a file alone, and makes one up where there is none.
        passwords=${AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE:?the file that is written with the password}
        umask 077
        python -c 'import json, os, sys; json.dump({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}, sys.stdout)' \
            >"$passwords"
        unset AIRFLOW_ADMIN_PASSWORD
        exec airflow api-server
        ;;
    scheduler | dag-processor | triggerer) exec airflow "$1" ;;
    *) echo "start.sh: Airflow has no part $1" >&2; exit 2 ;;
esac
