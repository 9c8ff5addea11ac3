"""Conventional recommenders: popularity, item-kNN, TF-IDF, SASRec, BERT4Rec."""
