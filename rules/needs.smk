# What jobs need of a cluster: minutes and memory, from measured costs.
# Limits, not predictions: twice what a job is expected to take, and more with every attempt (an interrupted synthesis resumes,
# so attempts add up). docs/cluster.md has the measured seconds behind them.

SECONDS = {  # one private step and its matching step, by images in the set; one step of network training on the set
    "cpu": {
        "private": 1.0,
        "image": 0.01,
        "training": 0.4,
    },  # two cores, width 128; results/published/benchmarks
    "gpu": {
        "private": 0.02,
        "image": 1e-4,
        "training": 0.005,
    },  # not measured: a cautious guess
}[
    "gpu" if GPU else "cpu"
]


def synthesis_minutes(wildcards, attempt):
    values = method_config(wildcards)
    if "outer" not in values:
        return one_shot_minutes(wildcards, attempt)
    classes = dataset(base_name(wildcards.dataset), OWN).classes
    images = classes * int(wildcards.spc)
    steps = values.get("iterations", 1000) * values["outer"]
    training = (
        values["inner"]
        * -(-images // values.get("batch_size", 256))
        * SECONDS["training"]
    )
    matching = values.get("batches", 10) * (
        SECONDS["private"] + images * SECONDS["image"]
    )
    tasks = 5 if wildcards.method.endswith("_continual") else 1
    return attempt * (15 + 2 * round(tasks * steps * (matching + training) / 60))


def one_shot_minutes(wildcards, attempt):
    """A release over all records, and post-processing: minutes."""
    return 60 * attempt


def synthesis_memory(wildcards, attempt):
    return 8000 * attempt


def evaluation_minutes(wildcards, attempt):
    """Per network: a thousand epochs of three networks take minutes on a GPU, and up to hours on a CPU."""
    return attempt * (20 if GPU else 8 * 60)


def evaluation_memory(wildcards, attempt):
    return 6000 * attempt


def snapshot_minutes(wildcards, attempt):
    """About a dozen snapshots, each evaluated on the first network."""
    return 12 * evaluation_minutes(wildcards, attempt)


def task_minutes(wildcards, attempt):
    """Five tasks, each evaluated on the first network."""
    return 5 * evaluation_minutes(wildcards, attempt)
