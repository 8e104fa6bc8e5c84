"""What displays share: the colours that stay apart for colour-blind eyes, and the names of scores."""

# Okabe and Ito's
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8C8C8C"
# dark to light as the value grows
SEQUENTIAL = "cividis"
SCORES = {"accuracy": "accuracy", "r2": "$R^2$"}
