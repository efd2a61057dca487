"""Which settings give the best model? Ray Tune tries them, Optuna proposes them, halving ends what lags behind."""
