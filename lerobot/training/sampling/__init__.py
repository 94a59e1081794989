"""Which frames a step is made of: their order, who reads which, how often and with what weight."""
