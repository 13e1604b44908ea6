#!/usr/bin/env bash
# Installs the Java that Spark runs on, of the version of the base image's Debian release, and tini (entrypoint.sh).
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends openjdk-17-jre-headless tini
rm -rf /var/lib/apt/lists/*
