#!/usr/bin/env bash
# Installs the Java that Spark runs on. Its version is that of the base image's Debian release.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends openjdk-17-jre-headless
rm -rf /var/lib/apt/lists/*
