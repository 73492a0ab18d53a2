"""Networks and what trains them: classifiers, generators, optimisers, compiled steps. They see whatever tensors they are given,
and never fetch any."""
