variable "prefix" {
  description = "What stands before the name of each repository, and a \"/\"."
  type        = string
  default     = "embedmill"

  validation {
    condition     = can(regex("^[a-z0-9]+([._/-][a-z0-9]+)*$", var.prefix))
    error_message = "prefix has small letters and digits, with single \".\", \"_\", \"-\" or \"/\" between them."
  }
}

variable "images" {
  description = "Images, a repository each: those of docker/."
  type        = list(string)
  default     = ["airflow", "ray", "spark"]

  validation {
    condition     = length(var.images) > 0 && alltrue([for image in var.images : can(regex("^[a-z0-9]+([._-][a-z0-9]+)*$", image))])
    error_message = "images are names of small letters and digits, at least one."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the images."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key, not its alias."
  }
}

variable "untagged_days" {
  description = "Days after which an image without a tag goes."
  type        = number
  default     = 7

  validation {
    condition     = var.untagged_days >= 1
    error_message = "untagged_days is 1 or more."
  }
}

variable "keep_images" {
  description = "Images kept in each repository. The oldest goes when more are pushed, also where it is in use."
  type        = number
  default     = 50

  validation {
    condition     = var.keep_images >= 10 && var.keep_images <= 1000
    error_message = "keep_images is from 10 to 1000: with fewer a rollback finds no image."
  }
}
