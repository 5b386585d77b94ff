"""The simulator: scenarios, clients, the model of the DSP, policies side by side."""
