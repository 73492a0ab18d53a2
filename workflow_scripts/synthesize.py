"""Rule synthesize: one private set with its certificate, trajectory and picture."""

from pathlib import Path

from privset import artifacts, cells, certificates, checkpoints, devices, methods, mosaic
from privset.config import parse
from privset.progress import Progress, job


def main(smk):
    with job(smk) as log, devices.device(gpu=smk.resources.get("gpu", 0) > 0) as device:
        cell = dict(smk.wildcards)
        method = methods.load(cell["method"])
        config = parse(method.Config, smk.params.config, f"config.yaml: {cell['preset']}.methods.{cell['method']}.config")
        vault, noise_seed = cells.open_vault(
            cell, Path(smk.input.data[0]).parent, delta=smk.params.delta, noise=smk.params.noise, device=device
        )
        trajectory = cells.Trajectory(Progress(cells.title(cell), log), vault.ledger)
        details = {"cell": cell, "config": smk.params.config, "code": smk.params.code, **artifacts.provenance(device)}
        generator = cells.method_generator(cell, device)
        file = checkpoints.File(
            Path(smk.params.checkpoint),
            belongs_to=checkpoints.fingerprint({**details, "noise": smk.params.noise, "delta": smk.params.delta}),
            log=lambda line: print(line, file=log, flush=True),
        )
        checkpoint = cells.Checkpoint(file, vault=vault, generator=generator, trajectory=trajectory)
        run = methods.Run(
            spc=None if cell["spc"] == "all" else int(cell["spc"]),
            generator=generator,
            start=trajectory.start,
            report=trajectory.report,
            snapshot=trajectory.snapshot,
            restore=checkpoint.load,
            checkpoint=checkpoint.save,
        )
        images, labels = method.synthesize(vault, config, run)
        artifacts.write_set(Path(smk.output.images), vault.facts.to_pixels(images).cpu().numpy(), labels.cpu().numpy())
        trajectory.write(Path(smk.output.trajectory))
        trajectory.write_snapshots(Path(smk.output.snapshots), vault.facts)
        mosaic.write_grid(Path(smk.output.grid), Path(smk.output.images))
        artifacts.write_json(
            Path(smk.output.certificate),
            certificates.certificate(vault.ledger, Path(smk.output.images), noise_seed=noise_seed, run=details),
        )
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
