"""How often does the gate promote a model that is no better?"""
