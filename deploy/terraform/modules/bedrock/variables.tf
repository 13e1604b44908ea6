variable "name" {
  description = "What the names of roles and policies begin with."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,39}$", var.name))
    error_message = "name has 2 to 40 small letters, digits and hyphens, and begins with a letter."
  }
}

variable "models" {
  description = "Embedding models that may be asked in this region: those that embedmill knows."
  type        = list(string)
  default     = ["amazon.titan-embed-text-v2:0"]

  validation {
    condition     = alltrue([for id in var.models : can(regex("^(amazon\\.titan-embed-text-v2:0|cohere\\.embed-[a-z0-9.:-]+)$", id))])
    error_message = "models are amazon.titan-embed-text-v2:0 or cohere.embed models."
  }
}

variable "inference_profiles" {
  description = "Profiles over several regions, by id, as eu.cohere.embed-v4:0, with their model and all their regions. Texts leave this region."
  type = map(object({
    model   = string
    regions = list(string)
  }))
  default = {}

  validation {
    condition     = alltrue([for id, profile in var.inference_profiles : endswith(id, ".${profile.model}") && length(profile.regions) > 0])
    error_message = "an inference profile's id is a place, a dot and its model, and it has one region or more."
  }

  validation {
    condition     = alltrue([for profile in values(var.inference_profiles) : can(regex("^(amazon\\.titan-embed-text-v2:0|cohere\\.embed-[a-z0-9.:-]+)$", profile.model))])
    error_message = "a profile's model is amazon.titan-embed-text-v2:0 or a cohere.embed model."
  }
}

variable "bucket" {
  description = "Bucket of the request files."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket is a bucket's name, without s3://."
  }
}

variable "batch_prefix" {
  description = "Prefix of the request files, which hold texts: let the bucket expire it."
  type        = string
  default     = "batch/"

  validation {
    condition     = can(regex("^[^/*?][^*?]*/$", var.batch_prefix)) && !startswith(var.batch_prefix, "state/")
    error_message = "batch_prefix ends with \"/\", does not begin with it, has no wildcard, and is not in the state."
  }
}

variable "bucket_key_arn" {
  description = "Key that encrypts the bucket."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.bucket_key_arn))
    error_message = "bucket_key_arn is the ARN of a key, not its alias."
  }
}

variable "log_key_arn" {
  description = "Key that encrypts the log of invocations. It is one with logs = true (module key)."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.log_key_arn))
    error_message = "log_key_arn is the ARN of a key, not its alias."
  }
}

variable "own_invocation_logging" {
  description = "Whether this module owns Bedrock's logging of the whole account and region, and keeps texts and vectors out of it. With false whatever is configured there holds, which may be a log of all texts."
  type        = bool
}

variable "account_id" {
  description = "AWS account that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id has 12 digits."
  }
}

variable "region" {
  description = "AWS region that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is a region's name, as in eu-central-1."
  }
}

variable "partition" {
  description = "AWS partition, aws or aws-us-gov: in China services have other names."
  type        = string
  default     = "aws"

  validation {
    condition     = contains(["aws", "aws-us-gov"], var.partition)
    error_message = "partition is aws or aws-us-gov."
  }
}
