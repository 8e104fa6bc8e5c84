"""What the library advises in Python, and what a command advises instead: a row for each text.

Rows are tried from first to last, and the first of several for one text is that of the commands which have an option.
"""

from __future__ import annotations

# a text of the library, the option of the commands that say otherwise ("" for every command), and what they say
ADVICE: tuple[tuple[str, str, str], ...] = (
    (r"(\w+)= \(--[\w-]+\)", "", r"\1="),
    # files
    (r", or load it with load_\w+", "", ""),
    (r"Load it with wsflow\.load_population\(path\)", "", "Other commands read it as it is"),
    (r"Load it with load_population or load_model", "", "wsflow info says what it holds"),
    (r"Make a population of it with load_networks", "widths", "Convert it"),
    (r"(of it )?with load_networks", "", r"\1with wsflow import"),
    (r"Load the data with load_task, and train networks on them", "", "Train networks on it with wsflow populate"),
    (r"and pass the fitted \w+ or \w+, or save state dicts", "", "and save state dicts"),
    (r"Networks are loaded from paths.*", "", "Networks are read from files."),
    (r"(Drop|drop) such networks with on_invalid='drop'", "drop_invalid", r"\1 such networks with --drop-invalid"),
    (r"(Drop|drop) such networks with on_invalid='drop'", "", r"\1 such networks, or train them again"),
    # what runs networks
    (
        r"Pass sample\(task=Task\(X, y\)\), whose X are inputs such as (.*?) \(--task on the command line\)",
        "",
        r"Name data such as \1 with --task",
    ),
    (
        r"Read them from a module: Architecture\.from_module\(module, example_input\)",
        "",
        "Read them with wsflow import --module FILE.py:NAME",
    ),
    (
        r"Read a module of (that|the other) width with Architecture\.from_module, and pass its architecture",
        "",
        r"Train networks of \1 width",
    ),
    (
        r"[Pp]ass (module|template)=( \([^)]*\))?,? and example_input=",
        "module",
        "Pass --module FILE.py:NAME and example_input=",
    ),
    (r"(?<![.\w])(module|template|inputs= and module)=( \([^)]*\))?", "module", "--module FILE.py:NAME"),
    (
        r"(?<![.\w])(module|template|inputs= and module)=( \([^)]*\))?(, which runs its networks)?",
        "",
        "networks that wsflow import read with --module FILE.py:NAME: they run by what is in their file",
    ),
    (r"or architecture=", "widths", "or --widths"),
    (r",? or (say it with )?architecture=(Architecture\.mlp\(\[\.\.\.\]\))?", "", ""),
    (r"example_input=", "input_shape", "--input-shape"),
    (r"example_input=( to read any module)?", "shapes", r"--input\1"),
    (r"example_input=", "", "--input-shape of wsflow import"),
    (r"([Aa])n example input of shape", "shapes", r"\1n --input of shape"),
    (r"([Aa])n example input of shape", "input_shape", r"\1n --input-shape of"),
    (r"an example[_ ]input\b", "shapes", "--input"),
    (r"an example[_ ]input\b", "input_shape", "--input-shape"),
    (r"Pass a tuple of what it takes as example_input", "shapes", "Give --input once for each"),
    (r"Pass a tuple of what it takes as example_input", "", "Wrap it in a module of one input"),
    (r"Architecture\.from_module reads", "", "this command reads"),
    (r"Architecture\.from_module needs", "", "this command needs"),
    (r"frozen=\(('[^']*'),\)", "frozen", r"--frozen \1"),
    (r"frozen=\(\.\.\.,\)", "frozen", "--frozen LAYER"),
    (r" with frozen=\([^)]*\)", "", " in Python, and save the population there"),
    (
        r" by hand with Architecture\(parameters=\.\.\., wires=\.\.\.\)",
        "architecture",
        " by hand with --architecture FILE.json",
    ),
    (r" by hand with Architecture\(parameters=\.\.\., wires=\.\.\.\)", "", " by hand, in Python"),
    # tasks
    (r"task=Task\(X, y\)", "task_name", "a task, by --task TASK"),
    (r"task=Task\(X, y\)", "", "networks with their task (from wsflow populate, or wsflow import --task TASK)"),
    (
        r"(Pass|pass) the (task|one) that they were trained for",
        "task_name",
        r"\1 the \2 that they were trained for with --task",
    ),
    (r"Name all classes of the networks, .*?Task\(classes=\.\.\.\)", "", "Take data with examples of all classes"),
    (r"Flatten its inputs: Task\(.*?, y\)", "", "Take data with one row for each example"),
    (r"[Pp]ass all of them as 'classes'", "", "Take data with examples of all classes"),
    (r", or name the 'classes'", "", ""),
    (r", and pass 'sample_weight' to weight examples", "", ""),
    (r" Pass 'sample_weight' for several labels\.", "", ""),
    (r"[Tt]he labels 'y' of a Task", "", "The labels"),
    (r"The 'y' of a (regression )?Task", "", "The targets"),
    (r"the 'y' of", "", "the targets of"),
    (r"The '?X'? of a Task|(Input )?X of this Task", "", "The inputs"),
    (r"The 'loss' of a [Tt]ask is one of (.*?), or a function", "", r"A loss is one of \1"),
    # weights
    (r" If its rows are networks, use WeightArray\(rows, architecture\)\.", "", ""),
    (r"Input X contains", "", "The weights contain"),
    (
        r"\w+ was fitted to networks (.*?), but X holds networks",
        "",
        r"The model was fitted to networks \1, but these are",
    ),
    (r"is row (\d+) of X, but X has (\d+) rows", "", r"is network \1, but there are \2 networks"),
    (r"[Pp]ass (a WeightArray of at least one network|at least one row of weights)", "", "pass networks"),
    (r"number the runs of (.*?) apart with runs=", "", r"number the runs of \1 apart with wsflow populate --first-run"),
    (r"pass networks of held-out runs", "held_out", "pass networks of other runs with --held-out"),
    # flows
    (r"Use NetworkGeometry\(latent=None\)", "", "Fit without geometry.latent"),
    (r"With NetworkGeometry\(latent=\.\.\.\)", "", "With geometry.latent"),
    (r", after a PermutationAligner", "", ", of aligned networks"),
    (
        r"The 'latent' components of a NetworkGeometry are (.*?), got kind=(.*?) and last_layer=(.*?)\. "
        r"Use NetworkGeometry\('euclidean', latent=(\d+)\)",
        "",
        r"The components of geometry.latent are \1, got \2 with the last layer \3. "
        r"Use -p geometry=euclidean -p geometry.latent=\4",
    ),
    (r"Put ScaleCanonicalizer\(.*?\) before WeightFlow \(.*? in both\)", "", "Use wsflow fit --form unit"),
    (r"(velocity=)?NeuronTransformer\(identity=(?:'learned'|(None))\)", "", r"identity=<\2>"),
    (r"identity=<None>", "", "identity=None"),
    (r"identity=<>", "", "identity='learned'"),
    (r"call fit\(X, y\) with .*?, or leave condition=None", "", "on the command line there is none: leave it out"),
    (r"Use return_log_prob=False, or guidance=None", "", "Leave out --log-prob, or --guide"),
    (r"or return_log_prob=False and score_samples", "", "or wsflow score instead of --log-prob"),
    (r"Use natural=False, or a loss that has a name", "", "Leave out --gradients"),
    (r"Pass a Task as the objective, or say natural=False in the Descent", "", "Leave out --gradients"),
    (r"Guide by a Task and (.*?), or say standardize=False in the Descent", "", r"Leave out --gradients, or \1"),
    (r"WeightFlow\((condition=[^)]*)\)", "", r"\1"),
    (r" \(rtol=, atol=\)| \(n_steps=\)", "", ""),
    (r"out of geometry=", "", "out of the geometry"),
    (r"\b([Aa]|this) Task\b", "", r"\1 task"),
    # how scikit-learn and this library say what a value may be
    (r"must be a str among \{(.*?)\}.*?\. Got (.*?) instead\.", "", r"is one of \1, got \2."),
    (r"one of \(([^)]*?),?\)(, or an? [A-Z]\w+( or [A-Z]\w+)*)?, got", "", r"one of \1, got"),
    (r"is required by \w+\.", "", "is required."),
    (
        r"Found array with (\d+) sample\(s\) \(shape=.*?\) while a minimum of (\d+) is required",
        "",
        r"At least \2 networks are needed, and here is \1",
    ),
)
