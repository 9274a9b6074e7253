"""A rule that predicts each sample of config["samples"] into config["results"]/SAMPLE.

    include: "packaging/snakemake/virnucpro.smk"

Settings are under config["virnucpro"]; config.yaml beside this file shows all of them, Snakefile how to use it.
"""

import shlex

VIRNUCPRO = {"threads": 4, "gpus": 0, "mem_mb": 16000, "extra": [], "container": None} | config.get("virnucpro", {})


def virnucpro_device():
    """The settings for no GPU, one, or several."""
    several = [f"trainer.devices={VIRNUCPRO['gpus']}", "trainer.strategy=ddp"] if VIRNUCPRO["gpus"] > 1 else []
    return ["cuda" if VIRNUCPRO["gpus"] else "cpu", *several]


rule virnucpro_predict:
    input:
        # One file or several, mates for instance
        lambda wildcards: config["samples"][wildcards.sample],
    output:
        # Files and not directory(): Snakemake would remove a folder before it starts again, and with it the scores that
        # an interrupted run goes on from.
        sequences=config["results"] + "/{sample}/sequences.tsv",
        viral=config["results"] + "/{sample}/viral.fasta",
        predictions=config["results"] + "/{sample}/predictions.parquet",
        orfs=config["results"] + "/{sample}/prediction_results.txt",
        consensus=config["results"] + "/{sample}/prediction_results_highestscore.csv",
        run=config["results"] + "/{sample}/run.json",
        run_log=config["results"] + "/{sample}/run.log",
        report=config["results"] + "/{sample}/report.html",
    log:
        config["results"] + "/logs/{sample}.log",
    threads: VIRNUCPRO["threads"]
    resources:
        gpu=VIRNUCPRO["gpus"],
        mem_mb=VIRNUCPRO["mem_mb"],
    params:
        folder=lambda wildcards, output: output.sequences.rpartition("/")[0],
        device=virnucpro_device(),
        # Settings by command, such as model=virnucpro_300; each word quoted for the shell
        extra=shlex.join(VIRNUCPRO["extra"]),
    container:
        VIRNUCPRO["container"]
    shell:
        # :q quotes for the shell, and the program takes what follows --output= and -- to the letter.
        "virnucpro-pl predict --output={params.folder:q} --threads {threads} --device {params.device} {params.extra}"
        " -- {input:q} > {log:q} 2>&1"
