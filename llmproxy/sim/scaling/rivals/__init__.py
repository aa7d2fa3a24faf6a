"""The rules of other autoscalers, written from their documentation, at the simulated fleet.

They see what their originals see: requests running and waiting, and how many replicas are ready. Their options are
those their users set, and `bench/scaling` searches them, on the very traffic they are judged by; the defaults here are
the best of that search on ServeGen's m-small at 99.3 %.

- `hpa`: Kubernetes' HorizontalPodAutoscaler (autoscaling/v2) on running and waiting requests per replica;
- `kpa`: Knative's KPA: concurrency averaged over a stable and a panic window;
- `keda`: KEDA on the length of the queue alone, through the HPA it makes.
"""
