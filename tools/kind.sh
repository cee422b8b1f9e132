#!/bin/sh
# The chart on a real cluster: kind, the laptop example, a bank, a question. Needs docker, kind, kubectl, helm, and the images of
# `make images`. Leaves the cluster; `kind delete cluster --name memory3` removes it.
set -eu
cd "$(dirname "$0")/.."
cluster=${KIND_CLUSTER:-memory3}
tag=${IMAGE_TAG:-0.1.0}

for program in docker kind kubectl helm; do
  command -v "$program" >/dev/null || { echo "$program is needed and not there" >&2; exit 1; }
done
kind get clusters | grep -qx "$cluster" || kind create cluster --name "$cluster" --wait 120s
for tier in retrieval memory decoder ingest; do
  kind load docker-image --name "$cluster" "memory3-$tier:$tag"
done
kubectl config use-context "kind-$cluster"
helm dependency update charts/memory3
helm upgrade --install demo charts/memory3 -f charts/memory3/examples/laptop/values.yaml \
  --set image.tag="$tag" --set image.pullPolicy=Never --wait --wait-for-jobs --timeout 20m
helm test demo
kubectl port-forward svc/demo-memory3-decoder 7303:7303 &
forward=$!
trap 'kill $forward' EXIT
for _ in $(seq 60); do
  .venv/bin/memory3 generate "Who painted The Starry Night?" --bank wikipedia --mode memory && exit 0
  sleep 2
done
echo "the decoder did not answer; kubectl get pods tells more" >&2
exit 1
