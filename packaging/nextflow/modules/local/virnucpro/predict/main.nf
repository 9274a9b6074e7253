process VIRNUCPRO_PREDICT {
    tag "$meta.id"
    label 'process_high'

    conda "${moduleDir}/environment.yml"
    // Built by packaging/docker/Dockerfile; there is no published image.
    container "${ task.accelerator ? 'virnucpro_pl:0.1.0-cuda' : 'virnucpro_pl:0.1.0-cpu' }"
    // The image starts the program, and Nextflow a shell.
    containerOptions "${ workflow.containerEngine in ['docker', 'podman'] ? '--entrypoint ""' : '' }"

    input:
    tuple val(meta), path(sequences)
    path dna_encoder    , stageAs: 'dna_encoder/*'
    path protein_encoder, stageAs: 'protein_encoder/*'
    path head           , stageAs: 'head/*'

    output:
    tuple val(meta), path("${prefix}/sequences.tsv")                         , emit: sequences
    tuple val(meta), path("${prefix}/viral.fasta")                           , emit: viral
    tuple val(meta), path("${prefix}/predictions.parquet")                   , emit: predictions
    tuple val(meta), path("${prefix}/prediction_results.txt")                , emit: orfs
    tuple val(meta), path("${prefix}/prediction_results_highestscore.csv")   , emit: consensus
    tuple val(meta), path("${prefix}/run.json")                              , emit: run
    tuple val(meta), path("${prefix}/run.log")                               , emit: log
    tuple val(meta), path("${prefix}/report.html")                           , emit: report   , optional: true
    tuple val(meta), path("${prefix}/{nonviral,uncalled}.fasta")             , emit: others   , optional: true
    tuple val(meta), path("${prefix}/*.fastq.gz")                            , emit: fastq    , optional: true
    tuple val(meta), path("${prefix}/kraken.tsv")                            , emit: kraken   , optional: true
    tuple val(meta), path("${prefix}/viral_chunks.bed")                      , emit: bed      , optional: true
    tuple val(meta), path("${prefix}/virnucpro_{calls,general}_mqc.json")    , emit: multiqc  , optional: true
    path "versions.yml"                                                      , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    if (prefix =~ /[*?\[\]{}\\]/) {
        error "VIRNUCPRO_PREDICT: ${prefix}: Nextflow reads *?[]{} and \\ in names of outputs as a pattern; set ext.prefix"
    }
    // For the shell: Nextflow itself leaves $, *, ?, [ and ; in the names of files as they are.
    def quoted = { text -> "'" + text.toString().replace("'", "'\\''") + "'" }
    def reads = (sequences instanceof List ? sequences : [sequences]).collect { quoted(it) }.join(' ')
    def folder = quoted(prefix)
    def gpus = task.accelerator ? task.accelerator.request : 0
    def device = gpus > 1 ? "cuda trainer.devices=${gpus} trainer.strategy=ddp" : gpus ? 'cuda' : 'cpu'
    def weights = [
        dna_encoder ? quoted("model.dna_encoder.weights=${dna_encoder}") : '',
        protein_encoder ? quoted("model.protein_encoder.weights=${protein_encoder}") : '',
        head ? quoted("model.head.weights=${head}") : ''
    ].join(' ')
    // The program takes what follows --output= and -- to the letter.
    """
    # Home folders may be missing or read-only
    export MPLCONFIGDIR="\$PWD/.cache" TRITON_CACHE_DIR="\$PWD/.cache"

    virnucpro-pl predict \\
        --output=${folder} \\
        --threads ${task.cpus} \\
        --device ${device} \\
        ${weights} \\
        ${args} \\
        -- ${reads}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        virnucpro-pl: \$(virnucpro-pl --version)
    END_VERSIONS
    """

    stub:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def quoted = { text -> "'" + text.toString().replace("'", "'\\''") + "'" }
    def folder = quoted(prefix)
    def nonviral = args.contains('formats.nonviral=true')
    def fastq = args.contains('formats.fastq=true')
    """
    mkdir -p -- ${folder}
    touch -- ${folder}/{sequences.tsv,viral.fasta,predictions.parquet,run.json,run.log,report.html}
    touch -- ${folder}/{prediction_results.txt,prediction_results_highestscore.csv}
    if ${nonviral}; then
        touch -- ${folder}/{nonviral,uncalled}.fasta
    fi
    if ${fastq}; then
        echo "" | gzip > ${folder}/viral.fastq.gz
        echo "" | gzip > ${folder}/nonviral.fastq.gz
        echo "" | gzip > ${folder}/uncalled.fastq.gz
    fi

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        virnucpro-pl: \$(virnucpro-pl --version)
    END_VERSIONS
    """
}
